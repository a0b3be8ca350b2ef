"""Reads batches as docs/WIRE.md describes them, with nothing of Headgate's own.

Reads, from standard input, batches each behind its length (4 bytes, big-endian); writes one line of
JSON for each: the header and the items, readings rebuilt one by one, and behind each item the running
hash that began with the batch.
"""

import json
import struct
import sys

import cbor2

LANES = ["urgent", "bulk", "quarantine"]
BETWEEN = ["raw", "hold", "linear"]
STEADY, SMOOTH, ADAPTIVE = range(3)


class Column:
    """A byte string of varints."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def done(self):
        return self.at == len(self.data)

    def next(self):
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed(self):
        folded = self.next()
        return folded // 2 if folded % 2 == 0 else -(folded + 1) // 2


def read_batch(data):
    version, header, items = cbor2.loads(data)
    assert version == 1
    readers = [read_readings, lambda count, body: [read_record(record) for record in body], read_gap]
    result = {"header": read_header(header), "items": []}
    chain = Chain()
    for kind, count, raw in items:
        body = readers[kind](count, raw)
        chain.item(kind, raw, body)
        result["items"].append({"kind": kind, "count": count, "body": body, "chain": chain.hex()})
    return result


class Chain:
    """The running hash, one step a sequence."""

    def __init__(self):
        self.high = self.low = 0

    def mix(self, word):
        high = mul(self.high ^ word & U32, 0xCC9E2D51)
        high = (high << 15 | high >> 17) & U32
        low = mul(self.low + word + 0x9E3779B9 & U32, 0x85EBCA6B)
        low ^= low >> 13
        self.high, self.low = mul(high, 5) + 0xE6546B64 + low & U32, mul(low ^ high, 0xC2B2AE35)

    def hex(self):
        return f"{self.high:08x}{self.low:08x}"

    def item(self, kind, raw, body):
        if kind == 2:
            self.high, self.low = struct.unpack(">II", raw[1])
        elif kind == 1:
            for record in raw:
                encoded = cbor2.dumps(record, canonical=True)
                self.mix(0x1B873593 ^ len(encoded))
                for byte in encoded:
                    self.mix(byte)
        else:
            for reading in body:
                self.reading(reading)

    def reading(self, reading):
        value, quality = reading["value"], reading["quality"]
        self.mix(series_hash(**reading["series"]))
        high, low = words(struct.pack(">d", reading["timeMs"]))
        self.mix(high)
        self.mix(low ^ mul(reading["timeNanos"], 0x9E3779B1))
        if isinstance(value, str):
            self.mix(0x27D4EB2F ^ len(utf16(value)))
            for unit in utf16(value):
                self.mix(unit)
            self.mix(quality)
        elif isinstance(value, dict):
            if "integer" in value:
                high, low = words((int(value["integer"]) % 2**64).to_bytes(8, "big"))
                high ^= 0x5BD1E995
            else:
                bits = value["float64"]
                high, low = words(bytes.fromhex("7ff8000000000000" if bits == "nan" else bits))
            self.mix(high)
            self.mix(low ^ quality)
        else:
            self.mix({None: 0x165667B1, True: 0x85EBCA77, False: 0xC2B2AE3D}[value])
            self.mix(quality)


U32 = 0xFFFFFFFF


def mul(a, b):
    return a * b & U32


def words(eight_bytes):
    return struct.unpack(">II", eight_bytes)


def utf16(text):
    data = text.encode("utf-16-be")
    return struct.unpack(f">{len(data) // 2}H", data)


def series_hash(device, metric, unit, labels, between, epsilon):
    epsilon = struct.unpack(">d", bytes.fromhex(epsilon["float64"]))[0]
    number = repr(int(epsilon) if epsilon == int(epsilon) else epsilon).replace("e-0", "e-")
    pairs = sorted(labels.items(), key=lambda pair: utf16(pair[0]))
    fields = [device, metric, unit, pairs, between]
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))[:-1] + f",{number}]"
    x = 0x811C9DC5
    for unit in utf16(text):
        x = mul(x ^ unit, 0x01000193)
    x = mul(x ^ x >> 16, 0x85EBCA6B)
    x = mul(x ^ x >> 13, 0xC2B2AE35)
    return x ^ x >> 16


def read_header(header):
    predecessor = header.get(9)
    return {
        "agent": header[0],
        "incarnation": header[1].hex(),
        "lane": LANES[header[2]],
        "first": header[3],
        "last": header[4],
        "before": header[5].hex(),
        "after": header[6].hex(),
        "boot": header[7].hex(),
        "sentMs": header[8],
        "predecessor": predecessor
        and {"incarnation": predecessor[0].hex(), "last": dict(zip(LANES, predecessor[1:]))},
        "ledger": header.get(10),
    }


def read_record(record):
    if record[0] != "quarantine":
        return {"type": record[0], "content": plain(record[1])}
    kind, topic, payload, size, sha256, reason, wall, monotonic = record
    return {
        "type": kind,
        "topic": topic,
        "payload": payload.hex(),
        "size": size,
        "sha256": sha256 and sha256.hex(),
        "reason": reason,
        "arrival": [wall, plain(monotonic)],
    }


def read_gap(_count, body):
    reason, after, series, from_ms, to_ms, at_least, *kept = body
    result = {
        "reason": reason,
        "after": after.hex(),
        "series": series,
        "fromMs": from_ms,
        "toMs": to_ms,
        "atLeast": at_least,
    }
    if kept:
        column, at, places = Column(kept[0]), -1, []
        while not column.done():
            at += column.next() + 1
            places.append(at)
        result["kept"] = {"places": places, "readings": read_readings(len(places), kept[1])}
    return result


def read_readings(count, body):
    column = lambda key: Column(body.get(key, b""))
    series = read_series(body[2], body[3], column(4))
    series_of = read_order(column(5), count, len(series))
    times = read_times(body, column, series, series_of)
    values = read_values(body, column, series, series_of)
    qualities = read_qualities(column(20), count)
    arrivals = read_arrivals(column(22), body.get(0, 0), body.get(21, 1), count)
    return [
        {
            "series": {name: part for name, part in series[series_of[i]].items() if name != "ids"},
            "timeMs": times[i][0],
            "timeNanos": times[i][1],
            "value": plain(values[i]),
            "quality": qualities[i],
            "arrival": arrivals[i],
        }
        for i in range(count)
    ]


def read_series(sources, channels, column):
    series, source = [], 0
    while not column.done():
        source += column.signed()
        channel = column.next()
        device, labels = sources[source] if isinstance(sources[source], list) else (sources[source], {})
        members = channels[channel] if isinstance(channels[channel], list) else [channels[channel]]
        metric, unit, between, epsilon = members + [None, 0, 0][len(members) - 1 :]
        series.append(
            {
                "device": device,
                "labels": labels,
                "metric": metric,
                "unit": unit,
                "between": BETWEEN[between],
                "epsilon": plain(epsilon),
                "ids": (source, channel),
            }
        )
    return series


def read_order(column, count, series_count):
    series_of, follower, seen = [], {}, 0
    run = count if column.done() else column.next()
    for _ in range(count):
        expected = follower.get(series_of[-1]) if series_of else None
        if expected is None:
            expected = seen if seen < series_count else 0
        if run > 0:
            run -= 1
        else:
            expected = column.next()
            run = count if column.done() else column.next()
        if series_of:
            follower[series_of[-1]] = expected
        seen = max(seen, expected + 1)
        series_of.append(expected)
    assert column.done() and seen == series_count
    return series_of


def read_times(body, column, series, series_of):
    from_ms, tick, step, pace = body.get(0, 0), body.get(6, 1), body.get(7, 0), body.get(8, STEADY)
    nano_tick = body.get(11, 0)
    sharing, steps, nanos = column(9), column(10), column(12)
    shared, level, step_of, times = {}, {}, {}, []
    n = nano = 0
    run = None if sharing.done() else sharing.next()
    for i, one in enumerate(series_of):
        source = series[one]["ids"][0]
        source_before = series[series_of[i - 1]]["ids"][0] if i > 0 else None
        shares = shared.get(one, source == source_before)
        if run == 0:
            shares = not shares
            run = None if sharing.done() else sharing.next()
        elif run is not None:
            run -= 1
        if not shares:
            is_first = one not in level
            expected = n if is_first else level[one] + step_of.get(one, step)
            miss = steps.signed()
            n = expected + miss
            nano = nanos.next() * nano_tick if nano_tick else 0
            if not is_first and pace == SMOOTH and -64 < miss < 64:
                level[one] = expected + miss // 4
            else:
                if not is_first and pace == ADAPTIVE:
                    step_of[one] = n - level[one]
                level[one] = n
        else:
            level[one] = n
        shared[one] = shares
        times.append((from_ms + n * tick, nano))
    assert sharing.done() and steps.done() and nanos.done()
    assert min(times)[0] == from_ms and max(times)[0] == from_ms + body.get(1, 0)
    return times


def read_values(body, column, series, series_of):
    """Values in sequence order, from columns that hold them series by series."""
    readings_of = [[] for _ in series]
    for i, one in enumerate(series_of):
        readings_of[one].append(i)
    numbers, nudges = column(14), column(15)
    doubles, singles = floats(body.get(16, b""), "d"), floats(body.get(17, b""), "f")
    texts, others = body.get(18, []), body.get(19, [])
    other_at = by_position(zip(others[::2], others[1::2]))
    nudge_at = by_position(pairs(nudges, Column.next, Column.signed))
    values, first_of, position = [None] * len(series_of), {}, 0
    for one, form in enumerate(body[13]):
        channel = series[one]["ids"][1]
        form_before, first_before = first_of.get(channel, (None, 0))
        before = first_before if form_before == form else 0
        is_first = True
        for i in readings_of[one]:
            if position in other_at:
                value = other_at.pop(position)
                if form == 5 and is_integer(value):
                    before = int(value)
            elif form == 0:
                value = None
            elif form == 1:
                value = numbers.next() == 1
            elif form == 2:
                value = texts[numbers.next()]
            elif form == 3:
                value = next(doubles)
            elif form == 4:
                value = next(singles)
            elif form == 5:
                before += numbers.signed()
                value = before
            else:
                scaled = numbers.signed()
                if form >= 48:
                    scaled += before
                    before = scaled
                if is_first:
                    first_of[channel] = (form, scaled)
                    is_first = False
                value = scaled / 10 ** ((form - 16) % 32)
                if position in nudge_at:
                    value = nudge(value, nudge_at.pop(position))
            values[i] = value
            position += 1
    assert numbers.done() and not other_at and not nudge_at
    assert next(doubles, None) is None and next(singles, None) is None
    return values


def is_integer(value):
    """Whichever way CBOR wrote it; but minus zero is none."""
    if isinstance(value, float):
        return value.is_integer() and abs(value) < 2**53 and struct.pack(">d", value) != struct.pack(">d", -0.0)
    return isinstance(value, int) and not isinstance(value, bool)


def by_position(gaps):
    at, found = 0, {}
    for gap, value in gaps:
        found[at + gap] = value
        at += gap + 1
    return found


def pairs(column, *readers):
    while not column.done():
        yield tuple(read(column) for read in readers)


def floats(planes, form):
    width = struct.calcsize(form)
    count = len(planes) // width
    for i in range(count):
        yield struct.unpack(">" + form, planes[i::count])[0]


def nudge(value, by):
    return struct.unpack(">d", struct.pack(">q", struct.unpack(">q", struct.pack(">d", value))[0] + by))[0]


def read_qualities(column, count):
    qualities = []
    for quality, run in pairs(column, Column.next, Column.next):
        qualities += [quality] * run
    return qualities + [0] * (count - len(qualities))


def read_arrivals(column, wall, per_ms, count):
    arrivals, monotonic = [], 0
    for run, difference, rest in pairs(column, Column.next, Column.signed, Column.signed):
        monotonic += difference
        wall += difference // per_ms + rest
        arrivals += [[wall, plain(monotonic / per_ms)]] * run
    assert len(arrivals) == count
    return arrivals


def plain(value):
    """JSON that keeps what JSON numbers lose: the bits of a number, and all digits of a large integer."""
    if isinstance(value, (list, tuple)):
        return [plain(member) for member in value]
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) >= 2**53:
        return {"integer": str(value)}
    return {"float64": struct.pack(">d", value).hex() if value == value else "nan"}


if __name__ == "__main__":
    while head := sys.stdin.buffer.read(4):
        data = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
        json.dump(read_batch(data), sys.stdout)
        sys.stdout.write("\n")
