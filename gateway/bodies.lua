-- Refuses a REST request with an unknown field, which the transcoder would ignore, or with a field given twice, of
-- which it would use the last. bodies.py puts the tables `messages` and `bindings` of the contract before this file.

local byte, find, match, sub = string.byte, string.find, string.match, string.sub
local BACKSLASH, QUOTE, SINGLE_QUOTE, COLON, COMMA = byte("\\\"':,", 1, 5)
local OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = byte("{}[]", 1, 4)
local MAX_DEPTH = 128 -- the transcoder accepts 100 levels
local MAX_KEY_BYTES = 512 -- longer than any field name with all of its letters escaped
local SHOWN_KEY_BYTES = 64 -- of a key in an error
local MAX_VIOLATIONS = 8

local function string_end(text, position, quote)
  local char = byte(text, position)
  while char and char ~= quote do
    position = position + (char == BACKSLASH and 2 or 1)
    char = byte(text, position)
  end
  return position
end

local HEX = "0123456789abcdefABCDEF"
local letters = {} -- by the two digits after \u00; a look-up costs a tenth of a function call
for high in HEX:gmatch(".") do
  for low in HEX:gmatch(".") do
    letters[high .. low] = string.char(tonumber(high .. low, 16))
  end
end

local function violation(field, description)
  return { field = field, description = description, reason = "" }
end

-- The violations in the JSON text of a message. Accepts all that the transcoder does, which is more than JSON: single
-- quotes, keys without quotes, a trailing comma. Malformed text has no violations: the transcoder refuses it.
local function violations_in_body(text, message)
  local found = {}
  local depth, kind, message_of, index = 0, {}, {}, {} -- by level: `{` or `[`, its message, the index in a list
  local named, from, to = {}, {}, {} -- by level: whether the present member of an object has its key, and its position
  local member, first, last = 1, 1, 0 -- the start of the present member; the position of the latest string
  local given, objects, object = {}, 0, {} -- by level: the object in which a name was last given; all; the present one

  local function key(level)
    local raw = sub(text, from[level], math.min(to[level], from[level] + MAX_KEY_BYTES))
    return find(raw, "\\", 1, true) and raw:gsub("\\u00(%x%x)", letters) or raw
  end

  local function path()
    local steps = {}
    for level = 1, depth do
      local name = kind[level] == OPEN and sub(key(level), 1, SHOWN_KEY_BYTES)
      steps[level] = name and (level > 1 and "." or "") .. (name ~= "" and name or '""') or "[" .. index[level] .. "]"
    end
    return table.concat(steps)
  end

  -- Checks the present key. Returns the message of its value; false if the value has no fields to check.
  local function check_key()
    local parent = message_of[depth]
    if not parent then
      return false
    end
    if parent.values then
      return messages[parent.values] or false -- the transcoder itself refuses a key of a map given twice
    end
    local written = key(depth)
    local value_type = parent.fields[written]
    if not value_type then
      found[#found + 1] = violation(path(), "is no field of " .. parent.description)
      return false
    end
    local name, last_object = parent.names[written] or written, given[depth]
    if last_object[name] == object[depth] then
      found[#found + 1] = violation(path(), "is given twice; give " .. name .. " once")
    end
    last_object[name] = object[depth]
    return messages[value_type] or false
  end

  local position = 1
  while position <= #text and #found < MAX_VIOLATIONS do
    local char = byte(text, position)
    if char == QUOTE or char == SINGLE_QUOTE then
      first, last = position + 1, string_end(text, position + 1, char) - 1
      position = last + 1
    elseif char == OPEN or char == OPEN_LIST then
      if depth == MAX_DEPTH or kind[depth] == OPEN and not named[depth] then
        return {}
      end
      depth = depth + 1
      kind[depth], message_of[depth], index[depth], named[depth] = char, message, 0, false
      objects, given[depth] = objects + 1, given[depth] or {}
      object[depth] = objects
      member = position + 1
    elseif char == COLON then
      if kind[depth] ~= OPEN or named[depth] then
        return {}
      end
      if first < member then
        first, last = match(text, "^%s*()[%w_$]*()", member)
        last = last - 1
      end
      named[depth], from[depth], to[depth] = true, first, last
      message = check_key()
    elseif char == COMMA then
      member, named[depth] = position + 1, false
      if kind[depth] == OPEN_LIST then
        index[depth] = index[depth] + 1
        message = message_of[depth]
      end
    elseif char == CLOSE or char == CLOSE_LIST then
      if depth == 0 or (char == CLOSE) ~= (kind[depth] == OPEN) then
        return {}
      end
      depth = depth - 1
    end
    position = position + 1
  end
  return (depth == 0 or #found == MAX_VIOLATIONS) and found or {}
end

-- The field that a name in a query refers to, in the contract's spelling, and whether it may be repeated; nil if none.
local function field_of(name, message)
  local steps, is_repeatable = {}, false
  for step in string.gmatch(name .. ".", "([^.]*)%.") do
    local value_type = message and message.fields and message.fields[step]
    if not value_type then
      return nil
    end
    steps[#steps + 1] = message.names[step] or step
    is_repeatable = message.lists[steps[#steps]]
    message = messages[value_type]
  end
  return table.concat(steps, "."), is_repeatable
end

-- Whether two fields are equal or one is a part of the other.
local function overlap(one, other)
  one, other = one .. ".", other .. "."
  local shorter = math.min(#one, #other)
  return sub(one, 1, shorter) == sub(other, 1, shorter)
end

local function overlaps_any(field, fields)
  for each in pairs(fields) do
    if overlap(field, each) then
      return true
    end
  end
  return false
end

-- The violations in a query: a field may be given once, in one place. The transcoder refuses unknown fields.
local function violations_in_query(query, binding)
  local found, given = {}, {}
  for written in string.gmatch("&" .. query, "&([^&=]*)") do
    local name = written:gsub("%%(%x%x)", function(code)
      return string.char(tonumber(code, 16))
    end)
    local field, is_repeatable = field_of(name, messages[binding.request])
    local reason = field
      and (
        match(field, "^[^.]*") == binding.part and "belongs in the body; leave it out of the query"
        or binding.bound[field] and "stands in the path; leave it out of the query"
        or not is_repeatable and overlaps_any(field, given) and "is given twice; give " .. field .. " once"
      )
    if reason and #found < MAX_VIOLATIONS then
      found[#found + 1] = violation(sub(name, 1, SHOWN_KEY_BYTES), reason)
    end
    if field then
      given[field] = true
    end
  end
  return found
end

local function binding_of(headers, path)
  for _, binding in ipairs(bindings[headers:get(":method")] or {}) do
    if find(path, binding.path) then
      return binding
    end
  end
end

local function violations_of(handle)
  local path, query = match(handle:headers():get(":path"), "^([^?]*)%??(.*)")
  local body = handle:body()
  local binding = (body or query ~= "") and binding_of(handle:headers(), path)
  if not binding then
    return {}
  end
  local found = query ~= "" and violations_in_query(query, binding) or {}
  local message = #found == 0 and body and messages[binding.body]
  return message and violations_in_body(body:getBytes(0, body:length()), message) or found
end

-- The error text for a request; nil if the request is accepted.
local function refusal(handle)
  local found = violations_of(handle)
  if #found == 0 then
    return nil
  end
  handle:streamInfo():dynamicMetadata():set("gateway.bodies", "violations", found)
  local lines = {}
  for number, each in ipairs(found) do
    lines[number] = each.field .. ": " .. each.description
  end
  return table.concat(lines, "; ")
end

function envoy_on_request(handle)
  local is_checked, message = pcall(refusal, handle)
  if not is_checked then
    handle:logErr(message)
    handle:respond({ [":status"] = "500" }, "the gateway can't check the request, so nothing was done; its log says why")
  elseif message then
    handle:respond({ [":status"] = "400" }, message)
  end
end
