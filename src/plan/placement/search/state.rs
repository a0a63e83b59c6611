//! The partial placement of the branch and bound, with propagation and undo.
//!
//! A section takes nothing more below its floor. Propagation keeps two rules at a fixpoint: an item is not below the
//! floor of a section it is live in, and a floor is not below the lowest item still to come. A section whose floor
//! plus remaining sizes exceeds the height has failed.

use super::model::{Model, NONE};

/// An undo record.
enum Change {
    Floor(u32, u64),
    Low(u32, u64),
    Witness(u32, u32),
    Place(u32),
}

/// The height is exceeded in a section: no placement extends the state.
pub(super) struct Dead {
    pub section: u32,
}

/// A partial placement, as tight as propagation makes it.
pub(super) struct State<'a> {
    pub model: &'a Model,
    /// Units available.
    pub height: u64,
    /// A height below which a section takes nothing more.
    pub floor: Vec<u64>,
    /// Sum of the sizes still to place in each section.
    pub rest: Vec<u64>,
    /// Lowest offset of each item, and its offset once placed.
    pub low: Vec<u64>,
    /// Highest offset of each item.
    high: Vec<u64>,
    pub placed: Vec<bool>,
    /// Unplaced items live in both this section and the next.
    pub crossing: Vec<u32>,
    /// Bits of the unplaced items that start in each section.
    pub start_bits: Vec<u128>,
    /// Items live in each section, those still to place first: `open[s]` of them.
    at: Vec<Vec<u32>>,
    open: Vec<u32>,
    /// Where each item stands in `at`: for item `i` and section `s`, at `begin[i] + s - first`.
    place_in: Vec<u32>,
    begin: Vec<usize>,
    /// For each section, an unplaced item that keeps the floor from rising.
    witness: Vec<u32>,
    /// For each item, the sections whose witness it is.
    witnessed: Vec<u32>,
    trail: Vec<Change>,
    /// Sections whose floor may have to rise.
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
}

impl<'a> State<'a> {
    /// The empty placement, propagated.
    pub fn new(model: &'a Model, height: u64) -> Result<Self, Dead> {
        let (n, sections) = (model.items.len(), model.load.len());
        let mut crossing = vec![0; sections];
        let mut start_bits = vec![0; sections];
        for (i, item) in model.items.iter().enumerate() {
            (item.first..item.last - 1).for_each(|s| crossing[s as usize] += 1);
            start_bits[item.first as usize] ^= model.bits[i];
        }
        if model.items.iter().any(|item| item.size > height) || model.load.iter().any(|&load| load > height) {
            return Err(Dead { section: 0 });
        }
        let at = model.at.clone();
        let begin = model.items.iter().scan(0, |end, item| {
            let begin = *end;
            *end += (item.last - item.first) as usize;
            Some(begin)
        });
        let begin: Vec<usize> = begin.collect();
        let mut place_in = vec![0; at.iter().map(Vec::len).sum()];
        for (s, items) in at.iter().enumerate() {
            for (place, &i) in (0u32..).zip(items) {
                place_in[begin[i as usize] + s - model.items[i as usize].first as usize] = place;
            }
        }
        let mut state = Self {
            model,
            open: at.iter().map(|items| items.len() as u32).collect(),
            at,
            place_in,
            begin,
            height,
            floor: vec![0; sections],
            rest: model.load.clone(),
            low: model.items.iter().map(|item| item.fixed.unwrap_or(0)).collect(),
            high: model.items.iter().map(|item| item.fixed.unwrap_or(height - item.size)).collect(),
            placed: vec![false; n],
            crossing,
            start_bits,
            witness: vec![NONE; sections],
            witnessed: vec![0; n],
            trail: Vec::new(),
            dirty: (0..sections as u32).collect(),
            is_dirty: vec![true; sections],
        };
        state.propagate()?;
        Ok(state)
    }

    /// A point to return to by [`undo`](Self::undo).
    pub fn mark(&self) -> usize {
        self.trail.len()
    }

    /// Places `i` at its lowest offset.
    pub fn place(&mut self, i: u32) -> Result<(), Dead> {
        let model = self.model;
        let item = &model.items[i as usize];
        let top = self.low[i as usize] + item.size;
        self.placed[i as usize] = true;
        self.start_bits[item.first as usize] ^= model.bits[i as usize];
        let (first, last) = (item.first as usize, item.last as usize);
        self.crossing[first..last - 1].iter_mut().for_each(|count| *count -= 1);
        self.rest[first..last].iter_mut().for_each(|rest| *rest -= item.size);
        self.trail.push(Change::Place(i));
        for s in first..last {
            self.close(i, s);
        }
        for s in first..last {
            if self.rest[s] > 0 && top + self.rest[s] > self.height {
                return Err(self.die(s));
            }
            self.trail.push(Change::Floor(s as u32, self.floor[s]));
            self.floor[s] = top;
            self.soil(s);
        }
        for &j in &model.overlaps[i as usize] {
            if !self.placed[j as usize] && self.low[j as usize] < top {
                self.lift(j, top)?;
            }
        }
        self.propagate()
    }

    /// Excludes offsets below `offset` for each of the items.
    pub fn lift_all(&mut self, lifts: &[(u32, u64)]) -> Result<(), Dead> {
        for &(i, offset) in lifts {
            if self.low[i as usize] < offset {
                self.lift(i, offset)?;
            }
        }
        self.propagate()
    }

    /// Takes back every change since `mark`.
    pub fn undo(&mut self, mark: usize) {
        while self.trail.len() > mark {
            match self.trail.pop() {
                Some(Change::Floor(s, floor)) => self.floor[s as usize] = floor,
                Some(Change::Low(i, low)) => self.low[i as usize] = low,
                Some(Change::Witness(s, i)) => self.set_witness(s as usize, i),
                Some(Change::Place(i)) => {
                    let item = &self.model.items[i as usize];
                    self.placed[i as usize] = false;
                    self.start_bits[item.first as usize] ^= self.model.bits[i as usize];
                    let (first, last) = (item.first as usize, item.last as usize);
                    self.crossing[first..last - 1].iter_mut().for_each(|count| *count += 1);
                    self.rest[first..last].iter_mut().for_each(|rest| *rest += item.size);
                    // Undone in the opposite order, the item still stands first behind the open ones.
                    self.open[first..last].iter_mut().for_each(|open| *open += 1);
                }
                None => {}
            }
        }
    }

    /// Whether `i` can be placed at `floor` now.
    pub fn is_option(&self, i: u32, floor: u64) -> bool {
        !self.placed[i as usize] && self.low[i as usize] == floor
    }

    /// The floor of a section, or a wall without end where nothing is left to place.
    pub fn wall(&self, s: usize) -> u64 {
        if self.rest[s] > 0 { self.floor[s] } else { u64::MAX }
    }

    /// Room in a section beyond what must still be placed.
    pub fn slack(&self, s: usize) -> u64 {
        self.height - self.floor[s] - self.rest[s]
    }

    fn lift(&mut self, i: u32, offset: u64) -> Result<(), Dead> {
        let item = &self.model.items[i as usize];
        let offset = item.align_up(offset);
        if offset > self.high[i as usize] {
            return Err(self.die(item.first as usize));
        }
        self.trail.push(Change::Low(i, self.low[i as usize]));
        self.low[i as usize] = offset;
        // Most items keep no floor from rising, and walking the sections of each would be most of the work.
        let mut witnessed = self.witnessed[i as usize];
        for s in item.first as usize..item.last as usize {
            if witnessed == 0 {
                break;
            }
            if self.witness[s] == i {
                witnessed -= 1;
                self.soil(s);
            }
        }
        Ok(())
    }

    /// Whether `i` keeps the floor of a section it is live in from rising.
    fn keeps_down(&self, i: u32, s: usize) -> bool {
        i != NONE && !self.placed[i as usize] && self.low[i as usize] <= self.floor[s]
    }

    fn set_witness(&mut self, s: usize, i: u32) {
        for (item, counts) in [(self.witness[s], false), (i, true)] {
            if item != NONE {
                let count = &mut self.witnessed[item as usize];
                *count = if counts { *count + 1 } else { *count - 1 };
            }
        }
        self.witness[s] = i;
    }

    /// Moves a placed item behind the open ones of a section.
    fn close(&mut self, i: u32, s: usize) {
        let of = |j: u32| self.begin[j as usize] + s - self.model.items[j as usize].first as usize;
        let place = self.place_in[of(i)];
        self.open[s] -= 1;
        let last = self.open[s];
        let other = self.at[s][last as usize];
        let (i_at, other_at) = (of(i), of(other));
        self.at[s].swap(place as usize, last as usize);
        self.place_in[i_at] = last;
        self.place_in[other_at] = place;
    }

    fn soil(&mut self, s: usize) {
        if !self.is_dirty[s] {
            self.is_dirty[s] = true;
            self.dirty.push(s as u32);
        }
    }

    fn propagate(&mut self) -> Result<(), Dead> {
        while let Some(s) = self.dirty.pop() {
            let s = s as usize;
            self.is_dirty[s] = false;
            if self.rest[s] == 0 || self.keeps_down(self.witness[s], s) {
                continue;
            }
            let (mut lowest, mut witness) = (u64::MAX, NONE);
            for &i in &self.at[s][..self.open[s] as usize] {
                if self.low[i as usize] < lowest {
                    (lowest, witness) = (self.low[i as usize], i);
                    if lowest <= self.floor[s] {
                        break;
                    }
                }
            }
            if witness != self.witness[s] {
                self.trail.push(Change::Witness(s as u32, self.witness[s]));
                self.set_witness(s, witness);
            }
            if lowest > self.floor[s] {
                if lowest + self.rest[s] > self.height {
                    return Err(self.die(s));
                }
                self.trail.push(Change::Floor(s as u32, self.floor[s]));
                self.floor[s] = lowest;
                for place in 0..self.open[s] as usize {
                    let i = self.at[s][place];
                    if self.low[i as usize] < lowest {
                        self.lift(i, lowest)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn die(&mut self, section: usize) -> Dead {
        while let Some(s) = self.dirty.pop() {
            self.is_dirty[s as usize] = false;
        }
        Dead { section: section as u32 }
    }
}
