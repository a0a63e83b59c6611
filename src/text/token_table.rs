//! The bytes of every token, one after the other, and the byte-level alphabet that vocabularies are written in.

/// Bytes by token id, without an allocation per token.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenTable {
    bytes: Vec<u8>,
    /// `ends[id]` is where token `id` ends in `bytes`; it starts where its predecessor ends.
    ends: Vec<u32>,
}

impl TokenTable {
    pub fn push(&mut self, token: &[u8]) {
        self.bytes.extend_from_slice(token);
        self.ends.push(u32::try_from(self.bytes.len()).expect("a vocabulary is far smaller than 4 GiB"));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        Some(&self.bytes[start..end])
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len() as u32).map(|id| self.get(id).expect("id is below len"))
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for TokenTable {
    fn from_iter<I: IntoIterator<Item = T>>(tokens: I) -> Self {
        let mut table = Self::default();
        tokens.into_iter().for_each(|token| table.push(token.as_ref()));
        table
    }
}

/// GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the other 68 are U+0100 upwards in byte order.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The character that stands for a byte in byte-level vocabularies.
#[cfg(test)]
pub(super) fn byte_to_char(byte: u8) -> char {
    if is_printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !is_printable(b)).count() as u32;
    char::from_u32(0x100 + rank).expect("below U+0144")
}

/// The byte that a character of a byte-level vocabulary stands for.
fn char_to_byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xFF => Some(code as u8).filter(|&b| is_printable(b)),
        code @ 0x100..=0x143 => (0..=255).filter(|&b| !is_printable(b)).nth((code - 0x100) as usize),
        _ => None,
    }
}

/// Appends the bytes of a token written in the byte alphabet; `None` if a character is not of that alphabet.
pub(super) fn byte_level_bytes(token: &str) -> Option<Vec<u8>> {
    token.chars().map(char_to_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        for byte in 0..=255u8 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!(byte_level_bytes("ĠHello"), Some(b" Hello".to_vec()));
        assert_eq!(byte_level_bytes("a b"), None, "a plain space is not a letter of the alphabet");
    }

    #[test]
    fn tokens_are_found_by_id() {
        let table: TokenTable = [&b"ab"[..], b"", b"c"].into_iter().collect();
        assert_eq!((table.get(0), table.get(1), table.get(2)), (Some(&b"ab"[..]), Some(&b""[..]), Some(&b"c"[..])));
        assert_eq!(table.get(3), None);
    }
}
