//! Deterministic instances of growing size and difficulty.

use staticgrad::plan::placement::Buffer;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.between(0, i as u64 + 1) as usize);
        }
    }
}

/// A deep training graph of about `count` buffers: forward activations live until their mirrored backward step, and beside each
/// step there are short-lived temporaries. With `gradients`, each backward layer also leaves a parameter gradient until the end.
pub fn training_graph(count: usize, gradients: bool, seed: u64) -> Vec<Buffer> {
    let mut random = Random(seed);
    let steps = (count / if gradients { 7 } else { 6 }) as u64;
    let (end, unit) = (2 * steps, 64 * 16);
    let widths = [1, 1, 3, 4, 4, 1, 2, 12];
    let mut buffers = Vec::with_capacity(count);
    for step in 0..steps {
        let mirror = end - step;
        let width = widths[(step % 8) as usize];
        buffers.push(Buffer::new(step, mirror, unit * width));
        // Statistics of a norm or a softmax are saved as well.
        if step % 2 == 0 {
            buffers.push(Buffer::new(step, mirror, 64 * random.between(1, 5)));
        } else {
            buffers.push(Buffer::new(step, step + 1, unit * random.between(1, 13)));
        }
        buffers.push(Buffer::new(step, step + random.between(1, 4), unit * random.between(1, 9)));
        // The gradients that flow back, and the scratch of their ops.
        buffers.push(Buffer::new(mirror - 1, (mirror + 1).min(end), unit * width));
        buffers.push(Buffer::new(mirror - 1, mirror, unit * random.between(1, 9)));
        buffers.push(Buffer::new(mirror - 1, (mirror + random.between(0, 2)).min(end), 64 * random.between(1, 40)));
        if gradients {
            buffers.push(Buffer::new(mirror - 1, end, 64 * random.between(1, 9)));
        }
    }
    random.shuffle(&mut buffers);
    buffers
}

/// An inference graph of `layers` transformer blocks: a residual stream and what each op reads and writes.
pub fn inference_graph(layers: u64, seed: u64) -> Vec<Buffer> {
    let mut random = Random(seed);
    let width = 64 * random.between(8, 33);
    let mut buffers = Vec::new();
    for layer in 0..layers {
        let t = 10 * layer;
        // Residual before and after attention, norm, q, attention output, norm, inner, gelu.
        for (lower, upper, factor) in
            [(0, 5, 1), (1, 2, 1), (2, 4, 1), (3, 5, 1), (5, 10, 1), (6, 7, 1), (7, 9, 4), (8, 10, 4)]
        {
            buffers.push(Buffer::new(t + lower, t + upper + 1, width * factor).aligned(64));
        }
        buffers.push(Buffer::new(t + 3, t + 4, 64 * random.between(1, 50)).aligned(64));
    }
    let last = 10 * layers;
    buffers.push(Buffer::new(last, last + 1, 50304 * 4).aligned(64));
    random.shuffle(&mut buffers);
    buffers
}

/// A rectangle of `steps` × `height` cut into `count` buffers by guillotine cuts, of which `drop_percent` are left out: a
/// placement of `height` exists, and without any left out it has no hole.
pub fn guillotine(count: usize, steps: u64, height: u64, unit: u64, drop_percent: u64, seed: u64) -> Vec<Buffer> {
    let mut random = Random(seed);
    let mut pieces = vec![(0, steps, 0, height)];
    while pieces.len() < count {
        pieces.sort_by_key(|&(l, u, bottom, top)| std::cmp::Reverse((u - l) * (top - bottom)));
        // Mostly one of the largest.
        let k = (random.between(0, 5) * random.between(0, 5) / 2) as usize;
        let (l, u, bottom, top) = pieces.remove(k.min(pieces.len() - 1));
        if random.between(0, 2) == 0 && u - l > 1 {
            let cut = random.between(l + 1, u);
            pieces.extend([(l, cut, bottom, top), (cut, u, bottom, top)]);
        } else if top - bottom > unit {
            let cut = bottom + unit * random.between(1, (top - bottom) / unit);
            pieces.extend([(l, u, bottom, cut), (l, u, cut, top)]);
        } else {
            pieces.push((l, u, bottom, top));
        }
    }
    let mut buffers: Vec<Buffer> = pieces.iter().map(|&(l, u, bottom, top)| Buffer::new(l, u, top - bottom)).collect();
    random.shuffle(&mut buffers);
    buffers.truncate(count - count * drop_percent as usize / 100);
    buffers
}
