//! The header of a `.npy` file: a Python dictionary of three keys.

/// The first bytes of every `.npy` file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// A header is a line or two: NumPy refuses more than 10,000 bytes.
const LONGEST: u32 = 10_000;
/// NumPy's limit of dimensions.
const MOST_DIMENSIONS: usize = 64;

/// What a header says of the array.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: Number,
    pub(super) shape: Vec<u64>,
    /// Byte at which the numbers begin.
    pub(super) start: u64,
}

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    U8,
    U16,
    U32,
    I32,
    I64,
}

impl Number {
    fn from_descr(descr: &str) -> Option<Self> {
        Some(match descr {
            "|u1" => Self::U8,
            "<u2" => Self::U16,
            "<u4" => Self::U32,
            "<i4" => Self::I32,
            "<i8" => Self::I64,
            _ => return None,
        })
    }

    pub(super) const fn width(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

impl Header {
    /// Reads the header of a file that begins with `bytes`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for a person.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let (text, start) = text(bytes)?;
        let mut rest = Text(text);
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        rest.expect('{')?;
        while !rest.take('}') {
            let key = rest.string()?;
            rest.expect(':')?;
            let again = match key {
                "descr" => descr.replace(rest.string()?).is_some(),
                "fortran_order" => fortran_order.replace(rest.word()).is_some(),
                "shape" => shape.replace(rest.tuple()?).is_some(),
                other => return Err(format!("it has a key `{}`", shown(other))),
            };
            if again {
                return Err(format!("it has the key `{key}` twice"));
            }
            if !rest.take(',') {
                rest.expect('}')?;
                break;
            }
        }
        if !rest.0.trim_matches([' ', '\n']).is_empty() {
            return Err("something follows its dictionary".to_owned());
        }
        let descr = descr.ok_or("`descr` is missing")?;
        let number = Number::from_descr(descr).ok_or_else(|| {
            let kind = match descr.as_bytes() {
                [b'>', ..] => ", numbers with their high byte first",
                _ => "",
            };
            format!("`descr` is '{}'{kind}", shown(descr))
        })?;
        match fortran_order {
            Some("False") => {}
            None => return Err("`fortran_order` is missing".to_owned()),
            Some(_) => return Err("`fortran_order` is not False".to_owned()),
        }
        Ok(Self {
            number,
            shape: shape.ok_or("`shape` is missing")?,
            start,
        })
    }
}

/// The header's text, and the byte at which the numbers begin.
fn text(bytes: &[u8]) -> Result<(&str, u64), String> {
    const NONE: &str = "it does not begin with one";
    let rest = bytes.strip_prefix(MAGIC).ok_or(NONE)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(NONE)?;
    let (len, rest) = match version {
        [1, 0] => {
            let (len, rest) = rest.split_first_chunk::<2>().ok_or(NONE)?;
            (u32::from(u16::from_le_bytes(*len)), rest)
        }
        [2 | 3, 0] => {
            let (len, rest) = rest.split_first_chunk::<4>().ok_or(NONE)?;
            (u32::from_le_bytes(*len), rest)
        }
        [major, minor] => {
            return Err(format!(
                "its version is {major}.{minor}, not 1.0, 2.0 or 3.0"
            ));
        }
    };
    if len > LONGEST {
        return Err(format!(
            "it is {len} bytes long, NumPy takes at most {LONGEST}"
        ));
    }
    let cut = || "the file ends inside it".to_owned();
    let text = rest
        .get(..usize::try_from(len).map_err(|_| cut())?)
        .ok_or_else(cut)?;
    let start = bytes.len() - rest.len() + text.len();
    let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
    Ok((text, start as u64))
}

/// The beginning of a text, without the signs that a terminal obeys.
fn shown(text: &str) -> String {
    let sign = |sign: char| match sign {
        ' '..='~' => sign,
        _ => '?',
    };
    text.chars().take(20).map(sign).collect()
}

/// What is left of a header's text.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// Takes a sign, and the spaces before it, where it is next.
    fn take(&mut self, sign: char) -> bool {
        let rest = self.0.trim_start().strip_prefix(sign);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        if self.take(sign) {
            return Ok(());
        }
        let found = shown(self.0.trim());
        Err(format!("it has `{found}` where a `{sign}` belongs"))
    }

    /// A string in quotation marks of either kind.
    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.take('"') {
            '"'
        } else {
            self.expect('\'')?;
            '\''
        };
        let (string, rest) = self
            .0
            .split_once(quote)
            .ok_or("a string of it does not end")?;
        self.0 = rest;
        Ok(string)
    }

    /// Letters and digits.
    fn word(&mut self) -> &'a str {
        let text = self.0.trim_start();
        let end = text.find(|sign: char| !sign.is_ascii_alphanumeric());
        let (word, rest) = text.split_at(end.unwrap_or(text.len()));
        self.0 = rest;
        word
    }

    /// `(3, 2)`, `(3,)` or `()`; a tuple of one has a comma.
    fn tuple(&mut self) -> Result<Vec<u64>, String> {
        let wrong = || "`shape` is not a tuple of whole numbers such as (3, 2) or (3,)".to_owned();
        let mut numbers = Vec::new();
        if !self.take('(') {
            return Err(wrong());
        }
        while !self.take(')') {
            let word = self.word();
            // Python 2 wrote its long numbers so.
            let digits = word.strip_suffix('L').unwrap_or(word);
            numbers.push(digits.parse().map_err(|_| wrong())?);
            let comma = self.take(',');
            if !comma {
                if numbers.len() == 1 || !self.take(')') {
                    return Err(wrong());
                }
                break;
            }
            if numbers.len() > MOST_DIMENSIONS {
                return Err(format!(
                    "`shape` has more than {MOST_DIMENSIONS} dimensions"
                ));
            }
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: [u8; 2], text: &str) -> Result<Header, String> {
        let len = u32::try_from(text.len()).unwrap().to_le_bytes();
        let len = if version[0] == 1 { &len[..2] } else { &len[..] };
        Header::read(&[MAGIC, &version, len, text.as_bytes(), &[7; 9]].concat())
    }

    #[test]
    fn every_way_to_write_a_header_is_read() {
        for (text, number, shape) in [
            (
                "{'descr': '<i8', 'fortran_order': False, 'shape': (3, 2), }  \n",
                Number::I64,
                &[3, 2][..],
            ),
            (
                "{'descr':'<u4','fortran_order':False,'shape':(3,2)}",
                Number::U32,
                &[3, 2],
            ),
            (
                "{\"shape\": (7,), \"descr\": \"|u1\", \"fortran_order\": False}\n",
                Number::U8,
                &[7],
            ),
            (
                "{'descr': '<i4', 'fortran_order': False, 'shape': ( ) , }",
                Number::I32,
                &[],
            ),
            (
                "{'descr': '<u2', 'fortran_order': False, 'shape': (3L, 2L,), }",
                Number::U16,
                &[3, 2],
            ),
        ] {
            for version in [[1, 0], [2, 0], [3, 0]] {
                let header = read(version, text).unwrap();
                assert_eq!(
                    (header.number, &header.shape[..]),
                    (number, shape),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn what_numpy_would_not_read_is_refused() {
        let with_shape =
            |shape: &str| format!("{{'descr': '<u4', 'fortran_order': False, 'shape': {shape}, }}");
        for shape in [
            "(2)",
            "(2 3)",
            "(,)",
            "(2,,3)",
            "(-2,)",
            "(2.0,)",
            "(0x2,)",
            "2",
            "[2]",
            "(+2,)",
            "(2,",
            "(99999999999999999999,)",
            "None",
            "(1_0,)",
        ] {
            let error = read([1, 0], &with_shape(shape)).unwrap_err();
            assert!(error.contains("`shape` is not a tuple"), "{shape}: {error}");
        }
        for (text, error) in [
            (
                "{'descr': '>i8', 'fortran_order': False, 'shape': (1,)}",
                "`descr` is '>i8', numbers with their high byte first",
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
                "`descr` is '<f4'",
            ),
            (
                "{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (1,)}",
                "it has `[('a', '<i8')], 'for` where a `'` belongs",
            ),
            (
                "{'descr': '<u4', 'fortran_order': True, 'shape': (1,)}",
                "`fortran_order` is not False",
            ),
            (
                "{'descr': '<u4', 'fortran_order': Falsey, 'shape': (1,)}",
                "`fortran_order` is not False",
            ),
            (
                "{'descr': '<u4', 'shape': (1,)}",
                "`fortran_order` is missing",
            ),
            (
                "{'fortran_order': False, 'shape': (1,)}",
                "`descr` is missing",
            ),
            (
                "{'descr': '<u4', 'fortran_order': False}",
                "`shape` is missing",
            ),
            (
                "{'descr': '<u4', 'descr': '<u8', 'fortran_order': False, 'shape': (1,)}",
                "it has the key `descr` twice",
            ),
            (
                "{'descr': '<u4', 'order': False, 'shape': (1,)}",
                "it has a key `order`",
            ),
            (
                "{'descr': '<u4', 'fortran_order': False, 'shape': (1,)} 5",
                "something follows its dictionary",
            ),
            (
                "{'descr': '<u4' 'fortran_order': False, 'shape': (1,)}",
                "it has `'fortran_order': Fal` where a `}` belongs",
            ),
            ("{'descr': '<u4", "a string of it does not end"),
            ("", "it has `` where a `{` belongs"),
        ] {
            assert_eq!(read([1, 0], text).unwrap_err(), error, "{text}");
        }
        assert!(read([4, 0], "{}").unwrap_err().contains("version is 4.0"));
        assert!(read([1, 1], "{}").unwrap_err().contains("version is 1.1"));
        let long = with_shape("(1,)") + &" ".repeat(10_000);
        assert!(read([2, 0], &long).unwrap_err().contains("bytes long"));
        assert_eq!(
            Header::read(b"\x93NUMPY\x01\x00\xff\x00{").unwrap_err(),
            "the file ends inside it"
        );
        assert_eq!(
            Header::read(b"\x93NUM").unwrap_err(),
            "it does not begin with one"
        );
    }
}
