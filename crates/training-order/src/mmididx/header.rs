//! The first 34 bytes of an `.idx`, and the offsets that follow from them.

use super::OpenError;
use crate::impostor::Impostor;
use crate::map::Map;

/// `MMIDIDX`, and two zero bytes.
pub(super) const MAGIC: [u8; 9] = *b"MMIDIDX\0\0";
/// The only version there is.
pub(super) const VERSION: u64 = 1;
/// Bytes before the arrays.
const LEN: u64 = 34;

/// How a token id is stored in the `.bin`; the discriminant is the code in the `.idx`.
///
/// The codes 6 and 7 are floating-point types, which hold no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are Rust's own types")]
pub enum TokenType {
    U8 = 1,
    I8 = 2,
    I16 = 3,
    I32 = 4,
    I64 = 5,
    U16 = 8,
}

/// What the header says, checked against the file's length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) token_type: TokenType,
    pub(super) n_items: u64,
}

impl TokenType {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::U8,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::U16,
    ];

    /// The type of that code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|token_type| *token_type as u8 == code)
    }

    /// Bytes of one token.
    pub const fn width(self) -> u64 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// Appends the tokens in `bytes` to `into`; else the place and value of the first that is no token id.
    pub(super) fn decode(self, bytes: &[u8], into: &mut Vec<u32>) -> Result<(), (u64, i64)> {
        match self {
            Self::U8 => into.extend(bytes.iter().copied().map(u32::from)),
            Self::U16 => {
                into.extend(arrays(bytes).map(|token| u32::from(u16::from_le_bytes(token))));
            }
            Self::I8 => {
                return decode_signed(
                    arrays(bytes).map(|token| i64::from(i8::from_le_bytes(token))),
                    into,
                );
            }
            Self::I16 => {
                return decode_signed(
                    arrays(bytes).map(|token| i64::from(i16::from_le_bytes(token))),
                    into,
                );
            }
            Self::I32 => {
                return decode_signed(
                    arrays(bytes).map(|token| i64::from(i32::from_le_bytes(token))),
                    into,
                );
            }
            Self::I64 => return decode_signed(arrays(bytes).map(i64::from_le_bytes), into),
        }
        Ok(())
    }
}

impl Header {
    pub(super) fn read(idx: &Map) -> Result<Self, OpenError> {
        let path = || idx.path().to_owned();
        let begins = idx.bytes().get(..MAGIC.len()).unwrap_or(idx.bytes());
        if begins != MAGIC {
            return Err(match Impostor::of(idx.bytes()) {
                Some(found) => OpenError::Impostor {
                    path: path(),
                    found,
                },
                None => OpenError::Magic {
                    path: path(),
                    found: begins.to_vec(),
                },
            });
        }
        let too_short = || OpenError::IdxLength {
            path: path(),
            expected: LEN,
            found: idx.len(),
        };
        let number = |offset| {
            idx.array(offset)
                .map(u64::from_le_bytes)
                .ok_or_else(too_short)
        };
        let [code] = idx.array(17).ok_or_else(too_short)?;
        let (version, n_items, n_documents) = (number(9)?, number(18)?, number(26)?);
        if version != VERSION {
            return Err(OpenError::Version {
                path: path(),
                found: version,
            });
        }
        let token_type = TokenType::from_code(code).ok_or_else(|| OpenError::TokenType {
            path: path(),
            found: code,
        })?;
        let expected = u128::from(LEN) + 12 * u128::from(n_items) + 8 * u128::from(n_documents);
        if expected != u128::from(idx.len()) {
            let expected = u64::try_from(expected).unwrap_or(u64::MAX);
            return Err(OpenError::IdxLength {
                path: path(),
                expected,
                found: idx.len(),
            });
        }
        Ok(Self {
            token_type,
            n_items,
        })
    }

    /// Where the size of an item stands. The header was checked: for an item there is, nothing overflows.
    pub(super) fn size_offset(&self, item: u64) -> Option<u64> {
        (item < self.n_items).then(|| LEN + 4 * item)
    }

    /// Where the pointer of an item stands.
    pub(super) fn pointer_offset(&self, item: u64) -> Option<u64> {
        (item < self.n_items).then(|| LEN + 4 * self.n_items + 8 * item)
    }
}

fn arrays<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn decode_signed(tokens: impl Iterator<Item = i64>, into: &mut Vec<u32>) -> Result<(), (u64, i64)> {
    for (place, token) in (0..).zip(tokens) {
        into.push(u32::try_from(token).map_err(|_| (place, token))?);
    }
    Ok(())
}
