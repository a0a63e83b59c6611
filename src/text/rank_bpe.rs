//! Byte-pair encoding where a token's id is also its merge rank, as in GPT-2's vocabulary.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use tokenizers::utils::SysRegex;

use super::token_table::TokenTable;
use crate::error::{Error, Result};

/// GPT-2's pre-split (Radford et al., 2019, `encoder.py`): merges never cross the edges of these pieces.
pub(super) const GPT2_SPLIT: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Merges, in each piece of the pre-split, the adjacent pair whose concatenation has the lowest id, until none is left.
pub(super) struct RankBpe {
    ranks: HashMap<Vec<u8>, u32>,
    split: SysRegex,
}

/// A piece under way: `parts[i]` starts at byte `i`; merged parts are skipped through `next`.
struct Merger {
    /// Exclusive end of the part that starts at each byte; 0 where no part starts.
    end: Vec<usize>,
    /// Start of the part before, for each byte where a part starts.
    previous: Vec<usize>,
    /// Candidate merges: (rank, start of the left part, end of the right part). Stale ones are dropped when popped.
    candidates: BinaryHeap<Reverse<(u32, usize, usize)>>,
}

impl RankBpe {
    /// `special` ids never come out of plain text. Errors if one of the 256 bytes has no token.
    pub fn new(table: &TokenTable, special: &[u32]) -> Result<Self> {
        let mut ranks = HashMap::with_capacity(table.len());
        for (id, token) in (0u32..).zip(table.iter()) {
            if !token.is_empty() && !special.contains(&id) {
                ranks.entry(token.to_vec()).or_insert(id);
            }
        }
        if let Some(byte) = (0..=255u8).find(|&byte| !ranks.contains_key([byte].as_slice())) {
            return Err(Error::Tokenizer(format!(
                "the vocabulary has no token for the byte 0x{byte:02x}, so it is not a byte-level BPE vocabulary"
            )));
        }
        let split = SysRegex::new(GPT2_SPLIT).expect("the pattern is constant");
        Ok(Self { ranks, split })
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut merger = Merger { end: Vec::new(), previous: Vec::new(), candidates: BinaryHeap::new() };
        let mut done = 0;
        for (start, end) in self.split.find_iter(text) {
            // The pattern matches every character, so gaps do not occur; a gap would be a piece of its own.
            if start > done {
                self.encode_piece(&text.as_bytes()[done..start], &mut merger, ids);
            }
            self.encode_piece(&text.as_bytes()[start..end], &mut merger, ids);
            done = end;
        }
        self.encode_piece(&text.as_bytes()[done..], &mut merger, ids);
    }

    fn encode_piece(&self, piece: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) {
        if piece.is_empty() {
            return;
        }
        if let Some(&id) = self.ranks.get(piece) {
            ids.push(id);
            return;
        }
        merger.merge(piece, &self.ranks);
        let mut start = 0;
        while start < piece.len() {
            let end = merger.end[start];
            ids.push(self.ranks[&piece[start..end]]);
            start = end;
        }
    }
}

impl Merger {
    /// Leaves in `end` the parts of `piece`. O(n log n), so that one long word cannot stall.
    fn merge(&mut self, piece: &[u8], ranks: &HashMap<Vec<u8>, u32>) {
        let n = piece.len();
        self.end.clear();
        self.end.extend(1..=n);
        self.previous.clear();
        self.previous.extend((0..n).map(|i| i.saturating_sub(1)));
        self.candidates.clear();
        for start in 0..n - 1 {
            self.offer(piece, ranks, start);
        }
        while let Some(Reverse((_, left, right_end))) = self.candidates.pop() {
            let right = self.end[left];
            // Fresh only if both parts still are what they were when the candidate was made.
            if right == 0 || right >= n || self.end[right] != right_end {
                continue;
            }
            self.end[left] = right_end;
            self.end[right] = 0;
            if right_end < n {
                self.previous[right_end] = left;
                self.offer(piece, ranks, left);
            }
            if left > 0 {
                self.offer(piece, ranks, self.previous[left]);
            }
        }
    }

    /// Adds the merge of the part at `left` with the part after it, if the vocabulary has their concatenation.
    fn offer(&mut self, piece: &[u8], ranks: &HashMap<Vec<u8>, u32>, left: usize) {
        let right_end = self.end[self.end[left]];
        if let Some(&rank) = ranks.get(&piece[left..right_end]) {
            self.candidates.push(Reverse((rank, left, right_end)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(merged: &[&str]) -> TokenTable {
        (0..=255u8).map(|b| vec![b]).chain(merged.iter().map(|t| t.as_bytes().to_vec())).collect()
    }

    /// The definition, quadratic: merge the leftmost pair of lowest rank until none is left.
    fn oracle(bpe: &RankBpe, piece: &[u8]) -> Vec<u32> {
        let mut parts: Vec<Vec<u8>> = piece.iter().map(|&b| vec![b]).collect();
        let rank = |parts: &[Vec<u8>], i: usize| bpe.ranks.get(&[&parts[i][..], &parts[i + 1]].concat()).copied();
        while let Some((_, i)) = (0..parts.len() - 1).filter_map(|i| Some((rank(&parts, i)?, i))).min() {
            let right = parts.remove(i + 1);
            parts[i].extend(right);
        }
        parts.iter().map(|p| bpe.ranks[p]).collect()
    }

    #[test]
    fn the_lowest_rank_merges_first_and_leftmost() {
        let bpe = RankBpe::new(&table(&["aa", "aaa", "ab", "bab", "aab"]), &[]).unwrap();
        let mut seed = 12345u32;
        for length in 1..60 {
            let piece: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if seed >> 30 == 0 { b'b' } else { b'a' }
                })
                .collect();
            let mut ids = Vec::new();
            bpe.encode(std::str::from_utf8(&piece).unwrap(), &mut ids);
            if !bpe.ranks.contains_key(&piece) {
                assert_eq!(ids, oracle(&bpe, &piece), "{piece:?}");
            }
        }
    }

    #[test]
    fn a_vocabulary_without_a_byte_is_refused() {
        let short: TokenTable = (0..255u8).map(|b| vec![b]).collect();
        assert!(RankBpe::new(&short, &[]).err().unwrap().to_string().contains("0xff"));
    }
}
