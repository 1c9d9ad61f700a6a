"""Pages of an SQLite file, written by hand: what no library would write, but a hostile hand may.

The format is that of https://www.sqlite.org/fileformat2.html: a *leaf* holds cells, each with a row; an
*interior* page holds cells, each with a child and the largest row number below it, and a last child.
"""

import sqlite3

SIZE = 4096
LEAF, INTERIOR = 0x0D, 0x05


def varint(number):
    """Give a number in groups of seven bits, the highest first."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


def be(number, width):
    return number.to_bytes(width, "big")


def page(kind, cells, last_child=None):
    """Give a page that holds these cells, in their order, at its end."""
    head_bytes = 8 if last_child is None else 12
    at, pointers, body = SIZE, b"", b""
    for cell in cells:
        at -= len(cell)
        pointers, body = pointers + be(at, 2), cell + body
    head = bytes([kind]) + be(0, 2) + be(len(cells), 2) + be(at, 2) + b"\0"
    head += b"" if last_child is None else be(last_child, 4)
    room = at - head_bytes - len(pointers)
    assert room >= 0, "too many cells"
    return head + pointers + b"\0" * room + body


def interior(children):
    """Give an interior page over pairs of a child and the largest row number below it."""
    *others, (last, _) = children
    return page(INTERIOR, [be(child, 4) + varint(key) for child, key in others], last)


class Pages:
    """A file as its pages, numbered from 1, which can be replaced and added to."""

    def __init__(self, path):
        self.path = path
        content = path.read_bytes()
        self._pages = [bytearray(content[i : i + SIZE]) for i in range(0, len(content), SIZE)]
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA page_size").fetchone() == (SIZE,)
            self.roots = dict(db.execute("SELECT name, rootpage FROM sqlite_master"))
        db.close()

    def __getitem__(self, number):
        return self._pages[number - 1]

    def __setitem__(self, number, content):
        self._pages[number - 1] = bytearray(content)

    def add(self, content):
        """Append a page; give its number."""
        self._pages.append(bytearray(content))
        return len(self._pages)

    def save(self):
        """Write the file, with the number of pages in its head."""
        self[1][28:32] = be(len(self._pages), 4)
        self.path.write_bytes(b"".join(map(bytes, self._pages)))

    def go_in_circles(self, table):
        """Put a tree over a table's only page that has it thousands of millions of times as a leaf."""
        root = self.roots[table]
        child = self.add(self[root])
        for _ in range(15):
            child = self.add(interior([(child, key) for key in range(1, 300)]))
        self[root] = interior([(child, key) for key in range(1, 300)])
        self.save()

    def repeat(self, table, times, forge):
        """Make a table's only row, a long one, into many, all with the same overflow pages.

        Args:
            table: Its name.
            times: How many rows there will be.
            forge: Gives the part of row ``number`` that stands in its cell, from that of row 1.
        """
        root = self.roots[table]
        cell, kept = _only_cell(self[root])
        leaves, fits = [], (SIZE - 8) // (len(cell) + 8)
        for first in range(1, times + 1, fits):
            numbers = range(first, min(first + fits, times + 1))
            cells = [kept.size + varint(n) + forge(kept.local, n) + kept.overflow for n in numbers]
            leaves.append((self.add(page(LEAF, cells)), numbers[-1]))
        while len(leaves) > 1:
            groups = [leaves[i : i + 300] for i in range(0, len(leaves), 300)]
            leaves = [(self.add(interior(group)), group[-1][1]) for group in groups]
        self[root] = self[leaves[0][0]]
        self.save()


class _Cell:
    def __init__(self, size, local, overflow):
        self.size, self.local, self.overflow = size, local, overflow


def _only_cell(leaf):
    assert leaf[0] == LEAF
    assert leaf[3:5] == be(1, 2)
    at = int.from_bytes(leaf[8:10], "big")
    end = at
    while leaf[end] & 0x80:
        end += 1
    size = bytes(leaf[at : end + 1])
    number_at = end + 1
    assert leaf[number_at] == 1  # the number of the row
    body = bytes(leaf[number_at + 1 :])
    return bytes(leaf[at:]), _Cell(size, body[:-4], body[-4:])


def flips(make):
    """Give, for each bit of a CRC-32, four bytes whose change in the message flips that bit alone.

    A CRC is linear in the bits of its message: so the 32 bits of four bytes reach every checksum.

    Args:
        make: Gives the checksum of the message that has these four bytes in it, as a number.
    """
    base = make(0)
    rows = [(make(1 << bit) ^ base, 1 << bit) for bit in range(32)]
    for bit in range(32):
        at = next(i for i in range(bit, 32) if rows[i][0] >> bit & 1)
        rows[bit], rows[at] = rows[at], rows[bit]
        pivot = rows[bit]
        rows = [
            (a ^ pivot[0], b ^ pivot[1]) if i != bit and a >> bit & 1 else (a, b)
            for i, (a, b) in enumerate(rows)
        ]
    return [change for _, change in rows]


def forged(wanted, found, changes):
    """Give the four bytes, as a number, that make the checksum what is wanted, given that of zeros."""
    four = 0
    for bit in range(32):
        if (wanted ^ found) >> bit & 1:
            four ^= changes[bit]
    return four
