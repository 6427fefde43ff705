"""How much a Parquet file unpacks to, from the headers of its pages, before anything is unpacked.

A file of a few bytes may hold pages that say they are gigabytes, and a reader makes room for what a page says. The
headers are Thrift's compact protocol: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md;
their fields are in https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from typing import Any, NamedTuple

_DEEPEST = 16
_ROW_GROUPS, _COLUMNS, _META = 4, 1, 3  # of FileMetaData, RowGroup, ColumnChunk
_PACKED, _DATA_AT, _DICTIONARY_AT = 7, 9, 11  # of ColumnMetaData
_UNPACKED_PAGE, _PACKED_PAGE = 2, 3  # of PageHeader
_OF_A_KIND = (5, 7, 8)  # of PageHeader: data, dictionary and data page of version 2; field 1 of each counts its values
_DICTIONARY = 7


class Unpacked(NamedTuple):
    """What the pages say of themselves."""

    bytes: int  # of all pages, unpacked
    values: int  # in all of them
    largest_dictionary: int  # bytes: each of its values may stand in every row


def unpacked_size(data: bytes) -> Unpacked:
    """Add up the pages of a whole file.

    Raises:
        ValueError: the headers are none, or name places outside the file.
    """
    footer = int.from_bytes(data[-8:-4], "little")
    whole, _ = _struct(data, len(data) - 8 - footer)
    size = values = dictionary = 0
    for group in _list(whole, _ROW_GROUPS):
        for column in _list(group, _COLUMNS):
            meta = _struct_in(column, _META)
            starts = [at for at in (meta.get(_DICTIONARY_AT), meta.get(_DATA_AT)) if isinstance(at, int) and at > 0]
            place, ends = min(starts, default=0), min(starts, default=0) + _whole_number(meta, _PACKED)
            if ends > len(data):
                raise ValueError("a column ends after the file")
            while place < ends:
                header, place = _struct(data, place)
                place += _whole_number(header, _PACKED_PAGE)
                size += _whole_number(header, _UNPACKED_PAGE)
                values += sum(_whole_number(header[kind], 1) for kind in _OF_A_KIND if kind in header)
                if _DICTIONARY in header:
                    dictionary = max(dictionary, _whole_number(header, _UNPACKED_PAGE))
    return Unpacked(size, values, dictionary)


def _struct_in(struct: Any, field: int) -> dict[int, Any]:
    found = struct.get(field, {}) if isinstance(struct, dict) else None
    if isinstance(found, dict):
        return found
    raise ValueError(f"field {field} is no struct")


def _list(struct: Any, field: int) -> list[Any]:
    found = struct.get(field, []) if isinstance(struct, dict) else None
    if isinstance(found, list):
        return found
    raise ValueError(f"field {field} is no list")


def _whole_number(struct: Any, field: int) -> int:
    found = struct.get(field, 0) if isinstance(struct, dict) else None
    if type(found) is not int or found < 0:
        raise ValueError(f"field {field} is no size")
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        if not 0 <= place < len(data):
            raise ValueError("a header ends after the file")
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
    raise ValueError("a number has no end")


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def _struct(data: bytes, place: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The fields by their numbers, and where the struct ends."""
    if depth > _DEEPEST:
        raise ValueError("a header is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        if not 0 <= place < len(data):
            raise ValueError("a header ends after the file")
        kind, step = data[place] & 0x0F, data[place] >> 4
        place += 1
        if kind == 0:
            return fields, place
        if step:
            number += step
        else:
            raw, place = _varint(data, place)
            number = _signed(raw)
        if kind in {1, 2}:  # a boolean stands in the field's own kind
            fields[number] = kind == 1
        else:
            fields[number], place = _value(data, place, kind, depth)


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in {1, 2, 3}:  # in a list a boolean has a byte of its own
        return data[place : place + 1], place + 1
    if kind in {4, 5, 6}:
        raw, place = _varint(data, place)
        return _signed(raw), place
    if kind == 7:
        return None, place + 8
    if kind == 8:
        size, place = _varint(data, place)
        return None, place + size
    if kind in {9, 10}:
        return _items(data, place, depth)
    if kind == 12:
        return _struct(data, place, depth + 1)
    raise ValueError(f"kind {kind} is none")


def _items(data: bytes, place: int, depth: int) -> tuple[list[Any], int]:
    if not 0 <= place < len(data):
        raise ValueError("a header ends after the file")
    count, kind = data[place] >> 4, data[place] & 0x0F
    place += 1
    if count == 15:
        count, place = _varint(data, place)
    if count > len(data):
        raise ValueError("a list is longer than the file")
    items: list[Any] = []
    for _ in range(count):
        item, place = _value(data, place, kind, depth + 1)
        items.append(item)
    return items, place
