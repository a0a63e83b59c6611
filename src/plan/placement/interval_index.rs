//! Which of the items inserted so far overlap a given one, without looking at the others.

use super::problem::Item;

/// Items by section: a segment tree answers "which cross this section", an array by first section "which start here".
/// A query costs O(log sections + items that overlap).
pub(super) struct IntervalIndex {
    leaves: usize,
    /// For each tree node, the inserted items whose canonical cover has it.
    nodes: Vec<Vec<u32>>,
    /// For each section, the inserted items that start in it.
    starts: Vec<Vec<u32>>,
}

impl IntervalIndex {
    pub fn new(sections: usize) -> Self {
        let leaves = sections.next_power_of_two().max(1);
        Self { leaves, nodes: vec![Vec::new(); 2 * leaves], starts: vec![Vec::new(); sections] }
    }

    pub fn insert(&mut self, item: &Item, id: u32) {
        self.starts[item.first as usize].push(id);
        let (mut l, mut r) = (item.first as usize + self.leaves, item.last as usize + self.leaves);
        while l < r {
            if l & 1 == 1 {
                self.nodes[l].push(id);
                l += 1;
            }
            if r & 1 == 1 {
                r -= 1;
                self.nodes[r].push(id);
            }
            (l, r) = (l / 2, r / 2);
        }
    }

    /// Calls `visit` once for each inserted item that overlaps `item`.
    pub fn overlapping(&self, item: &Item, mut visit: impl FnMut(u32)) {
        // Those live in its first section …
        let mut node = item.first as usize + self.leaves;
        while node > 0 {
            self.nodes[node].iter().for_each(|&id| visit(id));
            node /= 2;
        }
        // … and those that start later in its lifespan.
        for section in item.first as usize + 1..item.last as usize {
            self.starts[section].iter().for_each(|&id| visit(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_overlap_once() {
        let items: Vec<Item> = (0..120u32)
            .map(|i| {
                let first = i * 37 % 53;
                Item { first, last: (first + 1 + i * 11 % 17).min(60), size: 1, align: 1, fixed: None }
            })
            .collect();
        let mut index = IntervalIndex::new(60);
        for (i, item) in items.iter().enumerate() {
            let mut found = Vec::new();
            index.overlapping(item, |id| found.push(id));
            found.sort_unstable();
            let expected: Vec<u32> = (0..i as u32)
                .filter(|&j| items[j as usize].first < item.last && item.first < items[j as usize].last)
                .collect();
            assert_eq!(found, expected);
            index.insert(item, i as u32);
        }
    }
}
