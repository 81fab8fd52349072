import pytest

from trainable.data.readers.text_table import read_text_table
from trainable.errors import UserError

ROWS = {"image": ["ä.png", "b.png"], "label": ["cat", "dog, big"]}
QUOTED = 'image{0}label\nä.png{0}cat\nb.png{0}"dog, big"\n'


@pytest.fixture
def read(tmp_path):
    def read_bytes(data, *, name="list.csv", columns=()):
        (tmp_path / name).write_bytes(data)
        return read_text_table(tmp_path / name, columns=columns)

    return read_bytes


@pytest.mark.parametrize(
    ("separator", "name", "note"),
    [
        (",", "list.csv", ()),
        (";", "list.csv", ("'list.csv' has its columns parted by semicolons",)),
        ("\t", "list.csv", ("'list.csv' has its columns parted by tabs",)),
        ("|", "list.csv", ("'list.csv' has its columns parted by vertical bars",)),
        ("\t", "list.tsv", ()),
        (",", "list.tsv", ("'list.tsv' has its columns parted by commas",)),
    ],
)
def test_any_separator_is_read_and_an_unusual_one_is_said(read, separator, name, note):
    table = read(QUOTED.format(separator).encode(), name=name)
    assert table.table.to_pydict() == ROWS
    assert tuple(finding.line() for finding in table.findings) == note


@pytest.mark.parametrize(
    ("encoding", "mark", "note"),
    [
        ("utf-8", b"", None),
        ("utf-8-sig", b"", None),
        ("utf-16", b"", "UTF-16"),
        ("utf-16-be", b"\xfe\xff", "UTF-16"),
        ("utf-16-le", b"", "UTF-16"),
        ("utf-16-be", b"", "UTF-16"),
        ("utf-32", b"", "UTF-32"),
        ("latin-1", b"", "Latin-1; save it as UTF-8"),
    ],
)
def test_any_common_encoding_is_read_and_one_that_may_be_wrong_is_said(read, encoding, mark, note):
    table = read(mark + QUOTED.format(",").encode(encoding))
    assert table.table.to_pydict() == ROWS
    assert [note in finding.line() for finding in table.findings] == ([True] if note else [])


def test_letters_of_windows_are_read_where_latin_1_has_none(read):
    table = read("image,label\na.png,half–way\n".encode("cp1252"))
    assert table.table["label"].to_pylist() == ["half–way"]
    assert "Windows-1252" in table.findings[0].line()


@pytest.mark.parametrize("first", ["\n\n", " \r\n", "sep=,\n", "sep=,\r\n"])
def test_no_row_is_lost_to_lines_before_the_names(read, first):
    assert read((first + QUOTED.format(",")).encode()).table.to_pydict() == ROWS


def test_line_breaks_may_be_those_of_old_macs(read):
    assert read(QUOTED.format(",").replace("\n", "\r").encode()).table.to_pydict() == ROWS


def test_rows_without_any_value_are_dropped(read):
    assert read((QUOTED.format(",") + ",\n , \n\n").encode()).table.to_pydict() == ROWS
    assert read(b"image,label\na.png,\n,cat\n").table.to_pydict() == {"image": ["a.png", ""], "label": ["", "cat"]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00" * 20, "is a spreadsheet's workbook or another archive; save it as CSV"),
        (b"image,label\na.png,c\x00t\n", "is no text, it holds bytes of value 0; save it as CSV in UTF-8"),
    ],
)
def test_what_is_no_text_says_what_it_is(read, data, reason):
    with pytest.raises(UserError) as caught:
        read(data)
    assert str(caught.value) == f"data.path: 'list.csv' {reason}"


def test_blanks_after_commas_are_dropped_and_quotes_after_them_heeded(read):
    assert read('image, label\nä.png, cat\nb.png, "dog, big"\n'.encode()).table.to_pydict() == ROWS
    with pytest.raises(UserError, match="row 3 has 1 values, the first has 2"):
        read(b"image, label\na.png, cat\nb.png\n")


def test_a_line_break_may_be_quoted_in_a_file_of_any_size(read):
    long = "x" * 3_000_000  # more than a block of Arrow's
    table = read(f'image,label\n"a\n{long}\nb",cat\nc.png,dog\n'.encode()).table
    assert table["image"].to_pylist() == [f"a\n{long}\nb", "c.png"]


def test_a_column_that_is_wanted_stands_there_once(read):
    data = b"image,label,label\na.png,cat,dog\n"
    with pytest.raises(UserError, match="^data.path: 'list.csv' has 2 columns called 'label'; rename all but one$"):
        read(data, columns=["image", "label"])
    assert read(data, columns=["image"]).table.column_names == ["image", "label", "label.2"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a, b\nx\ry, z\n",
        b"a\rb,c\n1,2\n",
        b"image,label\na\n",
        b"image,label\na,b,c\n",
        "a,b".encode("utf-16")[:-1],
    ],
)
def test_what_is_no_table_is_one_line(read, data):
    with pytest.raises(UserError) as caught:
        read(data)
    assert str(caught.value).startswith("data.path: 'list.csv' ")
    assert "\n" not in str(caught.value)
