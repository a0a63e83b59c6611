//! From token bytes to text, a whole character at a time.

/// Holds back the bytes of an unfinished UTF-8 character until the rest arrives.
///
/// The pieces it hands out add up to `String::from_utf8_lossy` of all bytes: invalid sequences become U+FFFD as soon as
/// they are known to be invalid, an unfinished character only at the end.
#[derive(Debug, Clone, Default)]
pub struct StreamDecoder {
    pending: [u8; 4],
    length: usize,
}

impl StreamDecoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out` every character that `bytes` completes. Allocates only what `out` needs to grow.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        for &byte in bytes {
            self.pending[self.length] = byte;
            self.length += 1;
            self.flush(out);
        }
    }

    /// Ends the text: an unfinished character becomes one U+FFFD. The decoder is then empty again.
    pub fn finish(&mut self, out: &mut String) {
        if self.length > 0 {
            out.push(char::REPLACEMENT_CHARACTER);
            self.length = 0;
        }
    }

    fn flush(&mut self, out: &mut String) {
        while self.length > 0 {
            let invalid = match std::str::from_utf8(&self.pending[..self.length]) {
                Ok(text) => {
                    out.push_str(text);
                    self.length = 0;
                    return;
                }
                Err(error) => match error.error_len() {
                    None => return,
                    Some(invalid) => invalid,
                },
            };
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.copy_within(invalid..self.length, 0);
            self.length -= invalid;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_come_whole() {
        let mut decoder = StreamDecoder::new();
        let mut out = String::new();
        decoder.push(&[b'a', 0xF0, 0x9F], &mut out);
        assert_eq!(out, "a");
        decoder.push(&[0x98, 0x80], &mut out);
        assert_eq!(out, "a😀");
        decoder.push(&[0xE2, 0x82], &mut out);
        assert_eq!(out, "a😀");
        decoder.finish(&mut out);
        assert_eq!(out, "a😀\u{FFFD}");
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_lossy_text(
            bytes in proptest::collection::vec(prop_oneof![Just(0xE2u8), Just(0x82), Just(0xF0), Just(0x9F), any::<u8>()], 0..60),
            text in ".{0,12}",
            step in 1usize..6,
        ) {
            let mut all = bytes;
            all.extend(text.as_bytes());
            let mut decoder = StreamDecoder::new();
            let mut out = String::new();
            for piece in all.chunks(step) {
                decoder.push(piece, &mut out);
            }
            decoder.finish(&mut out);
            prop_assert_eq!(out, String::from_utf8_lossy(&all));
        }
    }
}
