//! States that are known to have no completion, in a table of fixed size.

/// Number of slots, a power of two.
const SLOTS: usize = 1 << 18;

/// Keys are 128 well-mixed bits, so that two states with one key do not happen. A slot keeps the last key written to it.
pub(super) struct Memo {
    slots: Vec<u128>,
}

impl Memo {
    pub fn new() -> Self {
        Self { slots: vec![0; SLOTS] }
    }

    pub fn contains(&self, key: u128) -> bool {
        self.slots[slot(key)] == key
    }

    pub fn insert(&mut self, key: u128) {
        self.slots[slot(key)] = key;
    }
}

fn slot(key: u128) -> usize {
    (key >> 64) as usize % SLOTS
}
