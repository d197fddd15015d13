-- SPDX-License-Identifier: Apache-2.0
--
-- Wireshark's view of what vnetd sends: VUDP, VARP with its extension, VFWD, and EtherIP with a vnet id.
--
-- The wire is described in docs/wire-format.md and include/vnetd/wire.h, messages about keys in
-- docs/security.md. Filters: vudp.vnet == "0097", varp.op == 1, varp.keys, vfwd.src, vnetd.malformed.
--
-- Whatever a packet holds, nothing here reads behind its end: each step asks have() first, which marks the
-- message as malformed, or says that the capture has cut it. Where it is malformed it is by the rules of our
-- own receiver, and the reason is that of docs/drop-reasons.md where there is one.

local UDP_PORT, ETHERIP_PROTOCOL, EXT_MAGIC = 1798, 97, 0x564e5444

local messages = { [1] = "VARP", [2] = "VUDP", [3] = "VFWD" }
local operations = { [1] = "request", [2] = "announce" }
local families = { [2] = "IPv4", [10] = "IPv6" }
local suites = {
	[1] = "auth sha1",
	[2] = "conf sha1",
	[3] = "auth gcm",
	[4] = "conf gcm",
	[5] = "auth gcm256",
	[6] = "conf gcm256",
}
local key_types =
	{ [1] = "init", [2] = "response", [3] = "confirm", [4] = "ack", [5] = "done", [6] = "retry", [7] = "refuse" }
-- bytes of each type's body
local key_bodies = { [1] = 68, [2] = 52, [3] = 16, [4] = 16, [5] = 16, [6] = 16, [7] = 1 }
local refusals = { [1] = "another suite", [2] = "an exchange that is not known" }

-- ---- protocols and fields --------------------------------------------------------------------

local vnetd = Proto("vnetd", "vnetd")
local vudp = Proto("vudp", "vnet VUDP")
local varp = Proto("varp", "vnet VARP")
local vfwd = Proto("vfwd", "vnet VFWD")

vnetd.prefs.port = Pref.uint("UDP port", UDP_PORT, "As the daemons' configuration has it")

local malformed = ProtoField.string("vnetd.malformed", "Malformed")
local cut = ProtoField.none("vnetd.cut", "Cut by the capture")
local message_id = ProtoField.uint16("vnetd.message", "Message", base.DEC, messages)
vnetd.fields = { malformed, cut, message_id }
local bad = ProtoExpert.new("vnetd.malformed.expert", "Malformed", expert.group.MALFORMED, expert.severity.ERROR)
local short = ProtoExpert.new("vnetd.cut.expert", "Cut by the capture", expert.group.UNDECODED, expert.severity.NOTE)
vnetd.experts = { bad, short }

local u = {
	opcode = ProtoField.uint16("vudp.opcode", "Opcode"),
	version = ProtoField.uint16("vudp.version", "EtherIP version", base.HEX),
	vnet = ProtoField.string("vudp.vnet", "Vnet"),
}
vudp.fields = { u.opcode, u.version, u.vnet }

local a = {
	op = ProtoField.uint16("varp.op", "Operation", base.DEC, operations),
	vnet = ProtoField.string("varp.vnet", "Vnet"),
	vmac = ProtoField.ether("varp.vmac", "MAC"),
	family = ProtoField.uint8("varp.family", "Address family", base.DEC, families),
	addr4 = ProtoField.ipv4("varp.address", "Care-of address"),
	addr6 = ProtoField.ipv6("varp.address6", "Care-of address"),
	trailing = ProtoField.bytes("varp.trailing", "Trailing bytes"),
	ext = ProtoField.none("varp.ext", "Extension"),
	ext_magic = ProtoField.uint32("varp.ext.magic", "Magic", base.HEX),
	ext_version = ProtoField.uint8("varp.ext.version", "Version"),
	ext_len = ProtoField.uint16("varp.ext.length", "Length"),
	tlv = ProtoField.none("varp.tlv", "TLV"),
	tlv_type = ProtoField.uint16("varp.tlv.type", "Type"),
	tlv_len = ProtoField.uint16("varp.tlv.length", "Length"),
	tlv_value = ProtoField.bytes("varp.tlv.value", "Value"),
	group = ProtoField.ipv4("varp.hello.group", "Group"),
	group6 = ProtoField.ipv6("varp.hello.group6", "IPv6 group"),
	host_id = ProtoField.bytes("varp.hello.host_id", "Host id", base.NONE),
	nonce = ProtoField.bytes("varp.hello.boot_nonce", "Boot nonce", base.NONE),
	caps = ProtoField.uint32("varp.hello.capabilities", "Capabilities", base.HEX),
	cap_hello = ProtoField.bool("varp.hello.capabilities.hello", "Says hello", 32, nil, 0x1),
	cap_lists = ProtoField.bool("varp.hello.capabilities.lists", "Reads lists", 32, nil, 0x2),
	list_vnet = ProtoField.string("varp.list.vnet", "Vnet"),
	list_mac = ProtoField.ether("varp.list.mac", "MAC"),
	list_count = ProtoField.uint16("varp.list.count", "MACs"),
	cap_unicast = ProtoField.bool("varp.hello.capabilities.unicast", "Uses no multicast", 32, nil, 0x100),
	mtu = ProtoField.uint16("varp.hello.mtu", "Underlay MTU"),
	name = ProtoField.string("varp.hello.name", "Host name", base.UNICODE),
	software = ProtoField.string("varp.hello.software", "Software"),
	solicit = ProtoField.none("varp.hello.solicit", "Solicit"),
	goodbye = ProtoField.none("varp.hello.goodbye", "Goodbye"),
	prefix = ProtoField.uint8("varp.hello.peers.prefix", "Prefix length of the subnet"),
	peer_count = ProtoField.uint8("varp.hello.peers.count", "Peers"),
	peer = ProtoField.ipv6("varp.hello.peers.address", "Peer"),
	auth_suite = ProtoField.uint8("varp.hello.auth.suite", "Suite", base.DEC, suites),
	auth_key = ProtoField.bytes("varp.hello.auth.key_id", "Key id", base.NONE),
	auth_mac = ProtoField.bytes("varp.hello.auth.mac", "Mac", base.NONE),
	keys = ProtoField.none("varp.keys", "Message about keys"),
	k_version = ProtoField.uint8("varp.keys.version", "Version"),
	k_type = ProtoField.uint8("varp.keys.type", "Type", base.DEC, key_types),
	k_suite = ProtoField.uint8("varp.keys.suite", "Suite", base.DEC, suites),
	k_key = ProtoField.bytes("varp.keys.key_id", "Key id", base.NONE),
	k_sender = ProtoField.bytes("varp.keys.sender", "Sender", base.NONE),
	k_receiver = ProtoField.bytes("varp.keys.receiver", "Receiver", base.NONE),
	k_exchange = ProtoField.bytes("varp.keys.exchange", "Exchange", base.NONE),
	k_challenge = ProtoField.bytes("varp.keys.challenge", "Challenge", base.NONE),
	k_noise = ProtoField.bytes("varp.keys.noise", "Noise message", base.NONE),
	k_refusal = ProtoField.uint8("varp.keys.refusal", "Refused for", base.DEC, refusals),
	k_mac = ProtoField.bytes("varp.keys.mac", "Mac", base.NONE),
}
local varp_fields = {}
for _, field in pairs(a) do
	table.insert(varp_fields, field)
end
varp.fields = varp_fields

local f = {
	opcode = ProtoField.uint16("vfwd.opcode", "Opcode"),
	id = ProtoField.uint16("vfwd.id", "IPv4 id", base.HEX),
	protocol = ProtoField.uint8("vfwd.protocol", "Protocol"),
	src = ProtoField.ipv4("vfwd.src", "Source"),
	dst = ProtoField.ipv4("vfwd.dst", "Group"),
	src6 = ProtoField.ipv6("vfwd.src6", "Source"),
	dst6 = ProtoField.ipv6("vfwd.dst6", "Group"),
	srcport = ProtoField.uint16("vfwd.srcport", "Source port"),
	dstport = ProtoField.uint16("vfwd.dstport", "Destination port"),
}
vfwd.fields = { f.opcode, f.id, f.protocol, f.src, f.dst, f.src6, f.dst6, f.srcport, f.dstport }

-- ---- what all of them use --------------------------------------------------------------------

local ethernet = Dissector.get("eth_withoutfcs")
local data = Dissector.get("data")

-- Part of a packet. Wireshark's own (TvbRange:tvb()) forgets how much of it the capture has cut.
local View = {}
View.__index = View
-- a range of Wireshark's
function View.__call(view, at, bytes)
	return view.tvb(view.at + at, bytes)
end
-- what there is
function View:len()
	return math.max(0, math.min(self.bytes, self.tvb:len() - self.at))
end
-- what there was
function View:reported_len()
	return self.bytes
end
function View:all()
	return self(0, self:len())
end
function View:part(at, bytes)
	return setmetatable({ tvb = self.tvb, at = self.at + at, bytes = bytes }, View)
end
function View:rest(at)
	return self:part(at, self.bytes - at)
end

local function view_of(tvb)
	return setmetatable({ tvb = tvb, at = 0, bytes = tvb:reported_len() }, View)
end

-- A message that breaks a rule: says which. From there on nothing is read.
local function fail(tree, pinfo, tvb, reason)
	local item = tree:add(malformed, tvb:all(), reason)
	item:add_proto_expert_info(bad, "Malformed: " .. reason)
	pinfo.cols.info:append(" [malformed: " .. reason .. "]")
	return false
end

-- Whether there are so many bytes; says why not.
local function have(tree, pinfo, tvb, bytes, reason)
	if tvb:len() >= bytes then
		return true
	end
	if tvb:reported_len() >= bytes then
		tree:add(cut):add_proto_expert_info(short)
		pinfo.cols.info:append(" [cut by the capture]")
		return false
	end
	return fail(tree, pinfo, tvb, reason)
end

-- 16 bytes as people write them: one field where the others are zero, else eight.
local function vnet_text(range)
	local fields, first = {}, 0
	for at = 0, 14, 2 do
		table.insert(fields, string.format("%04x", range(at, 2):uint()))
		if at < 14 then
			first = first + range(at, 2):uint()
		end
	end
	return first == 0 and fields[8] or table.concat(fields, ":")
end

-- Zero and the physical network's are on no wire.
local function vnet_right(tree, pinfo, tvb, text)
	if text == "0000" or text == "0001" then
		return fail(tree, pinfo, tvb, "bad_vnet_id")
	end
	return true
end

local function ext_fail(tree, pinfo, tvb, reason)
	return fail(tree, pinfo, tvb, "varp_bad_tlv: " .. reason)
end

-- ---- VUDP and EtherIP -------------------------------------------------------------------------

-- From the EtherIP version on: version, vnet, frame.
local function frame_of(tvb, pinfo, tree, root)
	if not have(tree, pinfo, tvb, 18, "truncated") then
		return
	end
	local version = tvb(0, 2):uint()
	tree:add(u.version, tvb(0, 2))
	local vnet = vnet_text(tvb(2, 16))
	tree:add(u.vnet, tvb(2, 16), vnet)
	tree:append_text(", vnet " .. vnet)
	pinfo.cols.info:append(" vnet " .. vnet)
	if math.floor(version / 16) % 16 ~= 4 and version ~= 0x4000 then
		return fail(tree, pinfo, tvb, "bad_version")
	end
	if not vnet_right(tree, pinfo, tvb, vnet) then
		return
	end
	if have(tree, pinfo, tvb, 32, "short_frame") then
		have(tree, pinfo, tvb, tvb:reported_len(), "")
		ethernet:call(tvb(18, tvb:len() - 18):tvb(), pinfo, root)
	end
end

local function read_vudp(tvb, pinfo, root)
	pinfo.cols.protocol = "VUDP"
	pinfo.cols.info = "Frame"
	local tree = root:add(vudp, tvb(0, math.min(tvb:len(), 22)))
	tree:add(u.opcode, tvb(2, 2))
	frame_of(tvb:rest(4), pinfo, tree, root)
end

-- ---- VARP ------------------------------------------------------------------------------------

-- What a message about keys holds between its header and its mac.
local key_body = {
	[1] = function(tree, tvb)
		tree:add(a.k_challenge, tvb(52, 16))
		tree:add(a.k_noise, tvb(68, 52))
	end,
	[6] = function(tree, tvb)
		tree:add(a.k_challenge, tvb(52, 16))
	end,
	[7] = function(tree, tvb)
		tree:add(a.k_refusal, tvb(52, 1))
	end,
}

local function keys_of(tree, pinfo, tvb)
	if tvb:len() < 68 then
		return fail(tree, pinfo, tvb, "keys_malformed: its length")
	end
	local item = tree:add(a.keys, tvb:all())
	local version, kind = tvb(0, 1):uint(), tvb(1, 1):uint()
	item:add(a.k_version, tvb(0, 1))
	item:add(a.k_type, tvb(1, 1))
	if version ~= 1 then
		return fail(item, pinfo, tvb, "keys_malformed: its version")
	end
	if not key_types[kind] then
		return fail(item, pinfo, tvb, "keys_malformed: its type")
	end
	local name = key_types[kind]
	item:append_text(": " .. name)
	pinfo.cols.info:append(", keys: " .. name)
	if tvb:len() ~= 52 + key_bodies[kind] + 16 then
		return fail(item, pinfo, tvb, "keys_malformed: its length")
	end
	item:add(a.k_suite, tvb(2, 1))
	item:add(a.k_key, tvb(4, 8))
	item:add(a.k_sender, tvb(12, 16))
	item:add(a.k_receiver, tvb(28, 16))
	item:add(a.k_exchange, tvb(44, 8))
	if key_body[kind] then
		key_body[kind](item, tvb)
	else
		item:add(a.k_noise, tvb(52, key_bodies[kind]))
	end
	item:add(a.k_mac, tvb(tvb:len() - 16, 16))
	return true
end

-- A list that is not as long as it says is none, and nothing else is wrong with the hello.
local function peers_of(tree, _, tvb)
	local count = tvb(1, 1):uint()
	tree:add(a.prefix, tvb(0, 1))
	local item = tree:add(a.peer_count, tvb(1, 1))
	if count == 255 then
		item:append_text(" (too many to be named)")
	elseif tvb:len() ~= 2 + 16 * count then
		item:append_text(" (not what the length says: not read)")
	else
		for at = 2, tvb:len() - 16, 16 do
			tree:add(a.peer, tvb(at, 16))
		end
	end
	return true
end

-- A list that is not as long as it says is none.
local function list_fail(tree, pinfo, tvb)
	ext_fail(tree, pinfo, tvb, "a list's length")
end

local function vnets_of(tree, pinfo, tvb)
	if tvb:len() % 22 ~= 0 then
		return list_fail(tree, pinfo, tvb)
	end
	for at = 0, tvb:len() - 22, 22 do
		tree:add(a.list_vnet, tvb(at, 16), vnet_text(tvb(at, 16)))
		tree:add(a.list_mac, tvb(at + 16, 6))
	end
	pinfo.cols.info:append(", " .. (tvb:len() / 22) .. " more vnets")
	return true
end

local function macs_of(tree, pinfo, tvb)
	local at, all = 0, 0
	while at < tvb:len() do
		local count = at + 18 <= tvb:len() and tvb(at + 16, 2):uint()
		if not count or at + 18 + 6 * count > tvb:len() then
			return list_fail(tree, pinfo, tvb)
		end
		tree:add(a.list_vnet, tvb(at, 16), vnet_text(tvb(at, 16)))
		tree:add(a.list_count, tvb(at + 16, 2))
		at = at + 18
		for _ = 1, count do
			tree:add(a.list_mac, tvb(at, 6))
			at = at + 6
		end
		all = all + count
	end
	pinfo.cols.info:append(", " .. all .. " more MACs")
	return true
end

local function auth_of(tree, _, tvb)
	tree:add(a.auth_suite, tvb(0, 1))
	tree:add(a.auth_key, tvb(4, 8))
	tree:add(a.auth_mac, tvb(12, 16))
	return true
end

local function capabilities_of(tree, _, tvb)
	local item = tree:add(a.caps, tvb(0, 4))
	item:add(a.cap_hello, tvb(0, 4))
	item:add(a.cap_lists, tvb(0, 4))
	item:add(a.cap_unicast, tvb(0, 4))
	return true
end

local function plain(field)
	return function(tree, _, tvb)
		tree:add(field, tvb:all())
		return true
	end
end

local function name_of(tree, pinfo, tvb)
	tree:add(a.name, tvb:all(), tvb:all():string(ENC_UTF_8))
	return true
end

-- IPv4's and IPv6's group of the vnets that the hello is of; 0: there is none
local function groups_of(tree, _, tvb)
	tree:add(a.group, tvb(0, 4))
	tree:add(a.group6, tvb(4, 16))
	return true
end

-- type -> name, shortest and longest value, what reads one that is not empty
local tlvs = {
	[1] = { "host id", 16, 16, plain(a.host_id) },
	[2] = { "boot nonce", 8, 8, plain(a.nonce) },
	[3] = { "capabilities", 4, 4, capabilities_of },
	[4] = { "underlay MTU", 2, 2, plain(a.mtu) },
	[5] = { "host name", 1, 63, name_of },
	[6] = { "software", 1, 31, plain(a.software) },
	[7] = { "solicit", 0, 0, a.solicit },
	[8] = { "goodbye", 0, 0, a.goodbye },
	[16] = { "vnets", 0, 512, vnets_of },
	[17] = { "MACs", 0, 512, macs_of },
	[18] = { "group", 20, 20, groups_of },
	[32] = { "peers", 2, 194, peers_of },
	[48] = { "keys", 1, 256, keys_of },
	[49] = { "auth", 28, 28, auth_of },
}

-- One TLV; gives its length with its header, and its type, or nothing where it is malformed.
local function tlv_of(tree, pinfo, tvb)
	if not have(tree, pinfo, tvb, 4, "varp_bad_tlv: a header that is cut") then
		return
	end
	local kind, len = tvb(0, 2):uint(), tvb(2, 2):uint()
	local known = tlvs[kind]
	local item = tree:add(a.tlv, tvb(0, math.min(4 + len, tvb:len())))
	item:set_text("TLV: " .. (known and known[1] or "unknown"))
	item:add(a.tlv_type, tvb(0, 2))
	item:add(a.tlv_len, tvb(2, 2))
	if not have(item, pinfo, tvb, 4 + len, "varp_bad_tlv: it ends behind the extension") then
		return
	end
	if known and (len < known[2] or len > known[3]) then
		ext_fail(item, pinfo, tvb, "its length")
		return
	end
	if known and known[3] == 0 then
		item:add(known[4])
		pinfo.cols.info:append(", " .. known[1])
	elseif known and len > 0 then
		known[4](item, pinfo, tvb:part(4, len))
	elseif len > 0 then
		item:add(a.tlv_value, tvb(4, len))
	end
	return 4 + len, kind
end

-- body: the TLVs, as many bytes as the extension says
local function tlvs_of(tree, pinfo, body)
	local at, has, of_auth = 0, {}, false
	while at < body:reported_len() do
		if at >= body:len() then
			return have(tree, pinfo, body, body:reported_len(), "")
		end
		local len, kind = tlv_of(tree, pinfo, body:rest(at))
		if not len then
			return
		end
		if of_auth and kind ~= 49 then
			return ext_fail(tree, pinfo, body, "something stands behind what vouches for the hello")
		end
		of_auth = kind == 49
		has[kind] = true
		at = at + len
	end
	if not has[48] and not has[17] and not (has[1] and has[2]) then
		return ext_fail(tree, pinfo, body, "no host id or boot nonce")
	end
	if not has[48] and not has[17] then
		pinfo.cols.info:append(", hello")
	end
end

local function extension_of(tvb, pinfo, root)
	local is_ours = tvb:len() >= 8 and tvb(0, 4):uint() == EXT_MAGIC
	if not is_ours then
		root:add(a.trailing, tvb:all())
		return
	end
	local tree = root:add(a.ext, tvb:all())
	local len = tvb(6, 2):uint()
	tree:add(a.ext_magic, tvb(0, 4))
	tree:add(a.ext_version, tvb(4, 1))
	tree:add(a.ext_len, tvb(6, 2))
	if tvb(4, 1):uint() ~= 1 then
		tree:append_text(" of another version: not read")
		return
	end
	if not have(tree, pinfo, tvb, 8 + len, "varp_bad_tlv: the extension is cut") then
		return
	end
	if len == 0 then
		return ext_fail(tree, pinfo, tvb, "no host id or boot nonce")
	end
	tlvs_of(tree, pinfo, tvb:part(8, len))
end

local function read_varp(tvb, pinfo, root)
	pinfo.cols.protocol = "VARP"
	pinfo.cols.info = "VARP"
	local tree = root:add(varp, tvb:all())
	local op = tvb(2, 2):uint()
	tree:add(a.op, tvb(2, 2))
	if not have(tree, pinfo, tvb, 43, "varp_short") then
		return
	end
	local vnet, family = vnet_text(tvb(4, 16)), tvb(26, 1):uint()
	local said = string.format("VARP %s vnet %s %s", operations[op] or "?", vnet, tostring(tvb(20, 6):ether()))
	tree:add(a.vnet, tvb(4, 16), vnet)
	tree:add(a.vmac, tvb(20, 6))
	tree:add(a.family, tvb(26, 1))
	if family == 10 then
		tree:add(a.addr6, tvb(27, 16))
		said = op == 2 and said .. " is at " .. tostring(tvb(27, 16):ipv6()) or said
	elseif family == 2 then
		tree:add(a.addr4, tvb(27, 4))
		said = op == 2 and said .. " is at " .. tostring(tvb(27, 4):ipv4()) or said
	end
	pinfo.cols.info = said
	if not operations[op] then
		return fail(tree, pinfo, tvb, "varp_bad_opcode")
	end
	-- a request's family is not read, as in the original
	if op == 2 and not families[family] then
		return fail(tree, pinfo, tvb, "varp_bad_family")
	end
	if tvb:len() > 43 then
		extension_of(tvb:rest(43), pinfo, tree)
	end
end

-- ---- VFWD ------------------------------------------------------------------------------------

-- An IPv6 header says 6. What originals relay says 0 and is IPv4.
local function inner_is_ipv6(tvb)
	return tvb:len() > 4 and math.floor(tvb(4, 1):uint() / 16) == 6
end

-- Gives where the inner message begins; nothing where it is malformed.
local function inner_headers(tree, pinfo, tvb)
	if inner_is_ipv6(tvb) then
		if not have(tree, pinfo, tvb, 52, "vfwd_bad_inner") then
			return
		end
		tree:add(f.protocol, tvb(10, 1))
		tree:add(f.src6, tvb(12, 16))
		tree:add(f.dst6, tvb(28, 16))
		return 52, tvb(10, 1):uint()
	end
	if not have(tree, pinfo, tvb, 32, "vfwd_bad_inner") then
		return
	end
	tree:add(f.id, tvb(8, 2))
	tree:add(f.protocol, tvb(13, 1))
	local src = tree:add(f.src, tvb(16, 4))
	if tvb(16, 4):uint() == 0 then
		src:append_text(" (the outer packet's)")
	end
	tree:add(f.dst, tvb(20, 4))
	return 32, tvb(13, 1):uint()
end

local dissect_message

local function read_vfwd(tvb, pinfo, root)
	pinfo.cols.protocol = "VFWD"
	pinfo.cols.info = "Forwarded"
	local tree = root:add(vfwd, tvb(0, math.min(tvb:len(), inner_is_ipv6(tvb) and 52 or 32)))
	tree:add(f.opcode, tvb(2, 2))
	local at, protocol = inner_headers(tree, pinfo, tvb)
	if not at then
		return
	end
	tree:add(f.srcport, tvb(at - 8, 2))
	tree:add(f.dstport, tvb(at - 6, 2))
	if protocol ~= 17 then
		return fail(tree, pinfo, tvb, "vfwd_bad_inner")
	end
	if not have(tree, pinfo, tvb, at + 4, "vfwd_bad_inner") then
		return
	end
	if tvb(at, 2):uint() == 3 then
		return fail(tree, pinfo, tvb, "vfwd_nested")
	end
	dissect_message(tvb:rest(at), pinfo, root)
end

-- ---- where packets come from --------------------------------------------------------------------

local readers = { [1] = read_varp, [2] = read_vudp, [3] = read_vfwd }

-- A message, at least its id and opcode; or what is wrong with it.
function dissect_message(tvb, pinfo, root)
	local tree = root:add(vnetd, tvb(0, math.min(4, tvb:len())))
	if not have(tree, pinfo, tvb, 4, "truncated") then
		return
	end
	local reader = readers[tvb(0, 2):uint()]
	tree:add(message_id, tvb(0, 2))
	if not reader then
		fail(tree, pinfo, tvb, "unknown_message")
		data:call(tvb:all():tvb(), pinfo, root)
		return
	end
	reader(tvb, pinfo, root)
end

function vnetd.dissector(tvb, pinfo, root)
	if tvb:len() == 0 then
		return 0
	end
	pinfo.cols.protocol = "vnetd"
	pinfo.cols.info = ""
	dissect_message(view_of(tvb), pinfo, root)
	return tvb:len()
end

-- IP protocol 97 as vnet has it; as RFC 3378 has it, it is Wireshark's own.
local vnet_etherip = Proto("vnet_etherip", "vnet EtherIP")
local rfc3378 = Dissector.get("etherip")

function vnet_etherip.dissector(tvb, pinfo, root)
	if tvb:len() >= 2 and tvb(0, 2):uint() == 0x3000 then
		return rfc3378:call(tvb, pinfo, root)
	end
	pinfo.cols.protocol = "EtherIP"
	pinfo.cols.info = "Frame"
	frame_of(view_of(tvb), pinfo, root:add(vudp, tvb(0, math.min(tvb:len(), 18))), root)
	return tvb:len()
end

local udp_ports = DissectorTable.get("udp.port")
local port = UDP_PORT
udp_ports:add(port, vnetd)
DissectorTable.get("ip.proto"):add(ETHERIP_PROTOCOL, vnet_etherip)

function vnetd.prefs_changed()
	udp_ports:remove(port, vnetd)
	port = vnetd.prefs.port
	udp_ports:add(port, vnetd)
end
