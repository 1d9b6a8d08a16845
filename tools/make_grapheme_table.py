#!/usr/bin/env python3
"""Writes src/bundle/tokenizer/grapheme_table.h: the classes of code points that decide where a grapheme
cluster ends.

The tokenizer must cut text into clusters exactly where Hugging Face's `tokenizers` library does, so the
classes are measured from that library's behaviour instead of being taken from one Unicode version's files:
its Precompiled normaliser applies a rule to a whole cluster of fewer than six bytes, which shows whether
two characters were one cluster. Needs the `tokenizers` package.

    python3 tools/make_grapheme_table.py > src/bundle/tokenizer/grapheme_table.h
"""

import struct

import tokenizers
from tokenizers import normalizers

LEAF = 1 << 8
UNUSED = 1 << 31


def charsmap(rules):
    """The binary form of a SentencePiece character map with the given {source: replacement} rules."""
    texts, tree = b"", {}
    for source, replacement in rules.items():
        node = tree
        for byte in source.encode():
            node = node.setdefault(byte, {})
        node[None] = len(texts)
        texts += replacement.encode() + b"\0"
    units, queue = [0] * 256, [(tree, 0, 0)]
    while queue:
        node, at, label = queue.pop()
        block = len(units)  # children of this node live at block ^ label
        units += [UNUSED] * 256
        units[at] = (at ^ block) << 10 | label
        for byte, child in node.items():
            if byte is None:
                units[at] |= LEAF
                units[block] = UNUSED | child
            else:
                queue.append((child, block ^ byte, byte))
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + texts


ACUTE = "\u0301"  # Extend, two bytes
KA = "\u0915"  # a Devanagari consonant
VIRAMA = "\u094d"  # its linker
ZWJ = "\u200d"
HEART = "\u2764"  # a pictograph
TM = "\u2122"  # another, three bytes
PREPEND = "\u0600"
ENCLOSING = "\u20d0"  # Extend, three bytes

RULES = {"x": "y", PREPEND: "z", TM: "z", KA: "z", "\u0340": "z"}
normalize = normalizers.Precompiled(charsmap(RULES)).normalize_str


def joins_left(c):
    return normalize("x" + c) == "y"


def is_prepend(c):
    return normalize(c + "x" + ACUTE) not in (normalize(c) + "y",)


def is_control(c):
    return normalize(c + "\u0340" + ENCLOSING).endswith("z")


def is_extend(c):  # within "picture Extend* ZWJ x picture", where spacing marks do not count
    return normalize(HEART + c + ZWJ + TM + ACUTE).endswith(ACUTE)


def is_picture(c):
    return normalize(c + ZWJ + TM + ACUTE).endswith(ACUTE)


def is_linker(c):
    return normalize(KA + c + KA + ACUTE).endswith(ACUTE)


def is_conjunct_extend(c):
    return normalize(KA + VIRAMA + c + KA + ACUTE).endswith(ACUTE)


def is_consonant(c):
    return normalize(c + VIRAMA + KA + ACUTE).endswith(ACUTE)


def classify(c):
    if joins_left(c):
        if is_linker(c):
            return "LINKER"
        if is_conjunct_extend(c):
            return "CONJUNCT_EXTEND"
        return "EXTEND" if is_extend(c) else "SPACING"
    if is_control(c):
        return "CONTROL"
    if is_prepend(c):
        return "PREPEND"
    if is_consonant(c):
        return "CONSONANT"
    if is_picture(c):
        return "PICTURE"
    return None


def is_computed(code):
    """Regional indicators and Hangul are told apart by arithmetic,
    the cases below by the probes' own nature."""
    return (
        0x1100 <= code <= 0x11FF
        or 0xA960 <= code <= 0xA97C
        or 0xAC00 <= code <= 0xD7FB
        or 0x1F1E6 <= code <= 0x1F1FF
        or code in (0x00, 0x0A, 0x0D)
    )


def ranges():
    known = {0x78: None, 0x0600: "PREPEND", 0x0340: "CONJUNCT_EXTEND"}
    first, last, current = None, None, None
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or is_computed(code):
            found = None
        elif code in known:
            found = known[code]
        else:
            found = classify(chr(code))
        if found is not None and found == current and code == last + 1:
            last = code
            continue
        if current is not None:
            yield first, last, current
        first, last, current = code, code, found
    if current is not None:
        yield first, last, current


def main():
    print("/*")
    print(" * grapheme_table.h - code points that join or cut grapheme clusters; included by grapheme.c "
          "alone.")
    print(" *")
    print(f" * Made by tools/make_grapheme_table.py with tokenizers {tokenizers.__version__}; do not edit.")
    print(" * What is not listed is OTHER; Hangul, regional indicators, CR, LF and NUL are computed.")
    print(" */")
    print("static const grapheme_range grapheme_ranges[] = {")
    line = "   "
    for first, last, name in ranges():
        entry = f" {{0x{first:04X}, 0x{last:04X}, {name}}},"
        if len(line) + len(entry) > 110:
            print(line)
            line = "   "
        line += entry
    print(line)
    print("};")


if __name__ == "__main__":
    main()
