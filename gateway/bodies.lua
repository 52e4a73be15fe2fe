-- Refuses a REST body with a key that names no field; the transcoder would ignore it. `messages` and `bodies`, which
-- bodies.py makes from the contract, stand before this.

local byte, find, match, sub = string.byte, string.find, string.match, string.sub
local BACKSLASH, QUOTE, TICK, COLON, COMMA = byte("\\\"':,", 1, 5)
local OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = byte("{}[]", 1, 4)
local DEEPEST = 128 -- the transcoder itself takes 100 levels
local LONGEST = 512 -- bytes of a key: beyond any name, were each of its letters escaped
local SHOWN = 64 -- bytes of a key
local REPORTED = 8 -- violations, at most

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

-- The violations of a text that stands for a message. It reads whatever the transcoder reads, which is more than JSON:
-- single quotes, keys without quotes, a comma too many. What is malformed has none: the transcoder refuses it.
local function unknown_fields(text, message)
  local found = {}
  local depth, kind, within, index = 0, {}, {}, {} -- a level: `{` or `[`, its message, the place in it
  local named, from, to = {}, {}, {} -- of a level, too: whether this part of an object has its key, and where that is
  local part, first, last = 1, 1, 0 -- where this part of an object begins; the latest string

  local function key(level)
    local raw = sub(text, from[level], math.min(to[level], from[level] + LONGEST))
    return find(raw, "\\", 1, true) and raw:gsub("\\u00(%x%x)", letters) or raw
  end

  local function path()
    local steps = {}
    for level = 1, depth do
      local name = kind[level] == OPEN and sub(key(level), 1, SHOWN)
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
    local name = inside.values or inside.fields[key(depth)]
    if not name then
      found[#found + 1] = { field = path(), description = "is no field of " .. inside.about, reason = "" }
    end
    return messages[name] or false
  end

  local at = 1
  while at <= #text and #found < REPORTED do
    local char = byte(text, at)
    if char == QUOTE or char == TICK then
      first, last = at + 1, string_end(text, at + 1, char) - 1
      at = last + 1
    elseif char == OPEN or char == OPEN_LIST then
      if depth == DEEPEST or kind[depth] == OPEN and not named[depth] then
        return {}
      end
      depth = depth + 1
      kind[depth], within[depth], index[depth], named[depth] = char, message, 0, false
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
  return (depth == 0 or #found == REPORTED) and found or {}
end

local function message_of(headers)
  local path = match(headers:get(":path"), "^[^?]*")
  for _, body in ipairs(bodies[headers:get(":method")] or {}) do
    if find(path, body.path) then
      return messages[body.message]
    end
  end
end

-- What is said against a request, if anything.
local function refusal(handle)
  local message = message_of(handle:headers())
  local body = message and handle:body()
  local found = body and unknown_fields(body:getBytes(0, body:length()), message) or {}
  if #found == 0 then
    return nil
  end
  handle:streamInfo():dynamicMetadata():set("gateway.bodies", "violations", found)
  local said = {}
  for number, violation in ipairs(found) do
    said[number] = violation.field .. ": " .. violation.description
  end
  return table.concat(said, "; ")
end

function envoy_on_request(handle)
  local checked, said = pcall(refusal, handle)
  if not checked then
    handle:logErr(said)
    handle:respond({ [":status"] = "500" }, "the gateway can't check the body, so nothing was done; its log says why")
  elseif said then
    handle:respond({ [":status"] = "400" }, said)
  end
end
