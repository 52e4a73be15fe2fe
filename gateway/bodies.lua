-- Refuses a REST request with a key that names no field, which the transcoder would ignore, or that names one twice, of
-- which it would take the last. `messages` and `bindings`, which bodies.py makes from the contract, stand before this.

local byte, find, match, sub = string.byte, string.find, string.match, string.sub
local BACKSLASH, QUOTE, TICK, COLON, COMMA = byte("\\\"':,", 1, 5)
local OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = byte("{}[]", 1, 4)
local MAX_DEPTH = 128 -- the transcoder itself takes 100 levels
local MAX_KEY_BYTES = 512 -- beyond any name, were each of its letters escaped
local SHOWN_KEY_BYTES = 64 -- of a key in a message
local MAX_VIOLATIONS = 8

local function string_end(text, at, quote)
  local char = byte(text, at)
  while char and char ~= quote do
    at = at + (char == BACKSLASH and 2 or 1)
    char = byte(text, at)
  end
  return at
end

local HEX = "0123456789abcdefABCDEF"
local letters = {} -- by what stands behind \u00: to look one up costs a tenth of a call
for high in HEX:gmatch(".") do
  for low in HEX:gmatch(".") do
    letters[high .. low] = string.char(tonumber(high .. low, 16))
  end
end

local function violation(field, description)
  return { field = field, description = description, reason = "" }
end

-- The violations of a text that stands for a message. It reads whatever the transcoder reads, which is more than JSON:
-- single quotes, keys without quotes, a comma too many. What is malformed has none: the transcoder refuses it.
local function violations_in_body(text, message)
  local found = {}
  local depth, kind, within, index = 0, {}, {}, {} -- a level: `{` or `[`, its message, the place in it
  local named, from, to = {}, {}, {} -- of a level, too: whether this part of an object has its key, and where that is
  local part, first, last = 1, 1, 0 -- where this part of an object begins; the latest string
  local given, objects, object = {}, 0, {} -- in which object of a level a name stood last; how many there are, and which

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

  -- What the value of the present key stands for: a message, or nothing to look into.
  local function value()
    local inside = within[depth]
    if not inside then
      return false
    end
    if inside.values then
      return messages[inside.values] or false -- the transcoder itself refuses a name twice
    end
    local written = key(depth)
    local kind_of_value = inside.fields[written]
    if not kind_of_value then
      found[#found + 1] = violation(path(), "is no field of " .. inside.about)
      return false
    end
    local name, places = inside.names[written] or written, given[depth]
    if places[name] == object[depth] then
      found[#found + 1] = violation(path(), "is given twice; give " .. name .. " once")
    end
    places[name] = object[depth]
    return messages[kind_of_value] or false
  end

  local at = 1
  while at <= #text and #found < MAX_VIOLATIONS do
    local char = byte(text, at)
    if char == QUOTE or char == TICK then
      first, last = at + 1, string_end(text, at + 1, char) - 1
      at = last + 1
    elseif char == OPEN or char == OPEN_LIST then
      if depth == MAX_DEPTH or kind[depth] == OPEN and not named[depth] then
        return {}
      end
      depth = depth + 1
      kind[depth], within[depth], index[depth], named[depth] = char, message, 0, false
      objects, given[depth] = objects + 1, given[depth] or {}
      object[depth] = objects
      part = at + 1
    elseif char == COLON then
      if kind[depth] ~= OPEN or named[depth] then
        return {}
      end
      if first < part then
        first, last = match(text, "^%s*()[%w_$]*()", part)
        last = last - 1
      end
      named[depth], from[depth], to[depth] = true, first, last
      message = value()
    elseif char == COMMA then
      part, named[depth] = at + 1, false
      if kind[depth] == OPEN_LIST then
        index[depth] = index[depth] + 1
        message = within[depth]
      end
    elseif char == CLOSE or char == CLOSE_LIST then
      if depth == 0 or (char == CLOSE) ~= (kind[depth] == OPEN) then
        return {}
      end
      depth = depth - 1
    end
    at = at + 1
  end
  return (depth == 0 or #found == MAX_VIOLATIONS) and found or {}
end

-- A name in a query as the contract writes it, and whether it may be given often; nothing if it names no field.
local function field_of(name, message)
  local steps, often = {}, false
  for step in string.gmatch(name .. ".", "([^.]*)%.") do
    local kind_of_value = message and message.fields and message.fields[step]
    if not kind_of_value then
      return nil
    end
    steps[#steps + 1] = message.names[step] or step
    often = message.lists[steps[#steps]]
    message = messages[kind_of_value]
  end
  return table.concat(steps, "."), often
end

-- Whether one of two fields is the other or a part of it.
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

-- The violations of a query: each field has one place. What names none is the transcoder's to refuse.
local function violations_in_query(query, binding)
  local found, given = {}, {}
  for written in string.gmatch("&" .. query, "&([^&=]*)") do
    local name = written:gsub("%%(%x%x)", function(code)
      return string.char(tonumber(code, 16))
    end)
    local field, often = field_of(name, messages[binding.request])
    local reason = field
      and (
        match(field, "^[^.]*") == binding.part and "belongs in the body; leave it out of the query"
        or binding.bound[field] and "stands in the path; leave it out of the query"
        or not often and overlaps_any(field, given) and "is given twice; give " .. field .. " once"
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
  local binding = binding_of(handle:headers(), path)
  if not binding then
    return {}
  end
  local found = query ~= "" and violations_in_query(query, binding) or {}
  local message = messages[binding.body]
  local body = #found == 0 and message and handle:body()
  return body and violations_in_body(body:getBytes(0, body:length()), message) or found
end

-- The message that refuses a request, if it is refused.
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
  local checked, message = pcall(refusal, handle)
  if not checked then
    handle:logErr(message)
    handle:respond({ [":status"] = "500" }, "the gateway can't check the request, so nothing was done; its log says why")
  elseif message then
    handle:respond({ [":status"] = "400" }, message)
  end
end
