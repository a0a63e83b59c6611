//! Small dense products that attention is made of.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "accumulators and operands run in step")]

use crate::kernels::vector::{Kernel, Simd};

/// Keys of a tile; tiles start at absolute multiples of it. What each tile costs apart from its products counts half of what it does with 64 (all
/// of attention of 512 rows in bf16 takes a fourteenth less, measured on AMD Zen 4); with 192 or 256 nothing more is gained.
pub const KEY_TILE: usize = 128;
/// Rows of a product block.
pub const BLOCK_ROWS: usize = 4;
/// Rows of a block of a product of at most [`NARROW`] vectors, where there are registers for them: with fewer, multipliers would wait
/// for their own sums.
const NARROW_ROWS: usize = 8;
/// See [`NARROW_ROWS`].
const NARROW: usize = 2;

/// Rows of the next block of a product `vectors` vectors wide, of which `left` rows are left.
#[inline(always)]
pub fn block_rows<S: Simd>(vectors: usize, left: usize) -> usize {
    let narrow = S::TILE_VECTORS > NARROW && vectors <= NARROW && left >= NARROW_ROWS;
    if narrow { NARROW_ROWS } else { left.min(BLOCK_ROWS) }
}
/// Vectors whose scores are computed before their values are summed: keys, then values, stay in the first-level cache.
pub const SPAN: usize = 16;
/// Rows of scratch are padded to a multiple of this many floats, the widest vector.
pub const PAD: usize = 16;

/// `n` rounded up to a multiple of [`PAD`].
pub const fn padded(n: usize) -> usize {
    n.div_ceil(PAD) * PAD
}

/// C = A · B with strides in words (floats, or pairs of bf16): A's element (row, k) is at `a + row · a_row + k · a_k`, row k of B at
/// `b + k · b_k`, row of C at `c + row · c_row`.
#[derive(Clone, Copy)]
pub struct Product {
    pub a: *const f32,
    pub a_row: usize,
    pub a_k: usize,
    pub b: *const f32,
    pub b_k: usize,
    pub c: *mut f32,
    pub c_row: usize,
}

/// What the chains of a product start from, and what becomes of the old C after them.
#[derive(Clone, Copy)]
pub enum Start {
    /// Zero; the old C is not read.
    Zero,
    /// The old C.
    Keep,
    /// Zero; then row i, counted from the first of the product, becomes `old[i]` · the old C + `new[i]` · its sums. [`Product::after`] does not
    /// move the factors.
    Merge { old: *const f32, new: *const f32 },
}

impl Product {
    /// `R` rows by `W` vectors from column `column`, for k in `ks`.
    #[inline(always)]
    unsafe fn block<S: Simd, const PAIRS: bool, const R: usize, const W: usize>(
        &self,
        s: S,
        column: usize,
        ks: (usize, usize),
        start: Start,
        each_k: &mut impl FnMut(),
    ) {
        // SAFETY: the caller of `rows` vouches for every element of the block.
        unsafe {
            let mut acc = self.begin::<S, R, W>(s, column, start);
            let mut a = self.a.add(ks.0 * self.a_k);
            let mut b = self.b.add(ks.0 * self.b_k + column);
            for _ in ks.0..ks.1 {
                each_k();
                let mut row = [s.splat(0.0); W];
                for w in 0..W {
                    row[w] = s.load(b.add(w * S::LANES));
                }
                for r in 0..R {
                    let x = s.splat(*a.add(r * self.a_row));
                    for w in 0..W {
                        acc[r][w] = multiply_add::<S, PAIRS>(s, x, row[w], acc[r][w]);
                    }
                }
                a = a.wrapping_add(self.a_k);
                b = b.wrapping_add(self.b_k);
            }
            self.end(s, column, start, &acc);
        }
    }

    /// What the sums of `R` rows by `W` vectors from column `column` on start from.
    ///
    /// # Safety
    /// These elements of C can be read unless sums start from zero.
    #[inline(always)]
    pub unsafe fn begin<S: Simd, const R: usize, const W: usize>(
        &self,
        s: S,
        column: usize,
        start: Start,
    ) -> [[S::V; W]; R] {
        let mut acc = [[s.splat(0.0); W]; R];
        // SAFETY: the caller's contract.
        unsafe {
            if matches!(start, Start::Keep) {
                for r in 0..R {
                    for w in 0..W {
                        acc[r][w] = s.load(self.c.add(r * self.c_row + column + w * S::LANES));
                    }
                }
            }
        }
        acc
    }

    /// Brings the sums of `R` rows by `W` vectors, which began with `start`, into C from column `column` on.
    ///
    /// # Safety
    /// These elements of C can be written, and read to be merged; then there are factors of `R` rows.
    #[inline(always)]
    pub unsafe fn end<S: Simd, const R: usize, const W: usize>(
        &self,
        s: S,
        column: usize,
        start: Start,
        acc: &[[S::V; W]; R],
    ) {
        for r in 0..R {
            for w in 0..W {
                // SAFETY: the caller's contract.
                unsafe {
                    let c = self.c.add(r * self.c_row + column + w * S::LANES);
                    let sums = match start {
                        Start::Zero | Start::Keep => acc[r][w],
                        Start::Merge { old, new } => {
                            s.fma(s.load(c), s.splat(*old.add(r)), s.mul(acc[r][w], s.splat(*new.add(r))))
                        }
                    };
                    s.store(c, sums);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn columns<S: Simd, const PAIRS: bool, const R: usize>(
        &self,
        s: S,
        vectors: usize,
        ks: (usize, usize),
        start: Start,
        each_k: &mut impl FnMut(),
    ) {
        let mut v = 0;
        // SAFETY: as `block`.
        unsafe {
            while v < vectors {
                let column = v * S::LANES;
                let width = (vectors - v).min(S::TILE_VECTORS);
                match width {
                    4 if S::TILE_VECTORS >= 4 => self.block::<S, PAIRS, R, 4>(s, column, ks, start, each_k),
                    3 if S::TILE_VECTORS >= 3 => self.block::<S, PAIRS, R, 3>(s, column, ks, start, each_k),
                    2 if S::TILE_VECTORS >= 2 => self.block::<S, PAIRS, R, 2>(s, column, ks, start, each_k),
                    _ => self.block::<S, PAIRS, R, 1>(s, column, ks, start, each_k),
                }
                v += width;
            }
        }
    }

    /// `rows` rows of C, at most [`BLOCK_ROWS`] or what [`block_rows`] says, `vectors` vectors wide, for k in `ks.0..ks.1`. Every element is one
    /// chain of fused multiply-adds over ascending k.
    ///
    /// # Safety
    /// The elements of A, B and C so addressed are inside live allocations, C apart from A and B. To be merged, rows have factors.
    #[inline(always)]
    pub unsafe fn rows<S: Simd>(self, s: S, rows: usize, vectors: usize, ks: (usize, usize), start: Start) {
        s.call(Rows::<false, _> { product: self, rows, vectors, ks, start, each_k: || {} });
    }

    /// As [`Product::rows`], with something to be done beside each k of a block. No call of its own, which would take as long as a few k.
    ///
    /// # Safety
    /// As [`Product::rows`].
    #[inline(always)]
    pub unsafe fn rows_beside<S: Simd>(
        self,
        s: S,
        rows: usize,
        vectors: usize,
        ks: (usize, usize),
        start: Start,
        each_k: impl FnMut(),
    ) {
        Rows::<false, _> { product: self, rows, vectors, ks, start, each_k }.run(s);
    }

    /// Adds to row i what is left of its sum over k, from `from` to `limits[i]`.
    ///
    /// # Safety
    /// As [`Product::rows`].
    #[inline(always)]
    pub unsafe fn last_rows<S: Simd>(self, s: S, vectors: usize, from: usize, limits: &[usize]) {
        for (i, &limit) in limits.iter().enumerate() {
            if limit > from {
                // SAFETY: the caller's.
                unsafe { self.after(i).rows(s, 1, vectors, (from, limit), Start::Keep) };
            }
        }
    }

    /// As [`Product::rows`] where A and B hold pairs of bf16 values and k counts pairs.
    ///
    /// # Safety
    /// As [`Product::rows`].
    #[inline(always)]
    pub unsafe fn pair_rows<S: Simd>(self, s: S, rows: usize, vectors: usize, ks: (usize, usize), start: Start) {
        s.call(Rows::<true, _> { product: self, rows, vectors, ks, start, each_k: || {} });
    }

    /// The same product without its first `rows` rows.
    #[inline(always)]
    pub fn after(self, rows: usize) -> Self {
        Product { a: self.a.wrapping_add(rows * self.a_row), c: self.c.wrapping_add(rows * self.c_row), ..self }
    }
}

/// c + a · b, over f32 lanes or over pairs of bf16 values.
#[inline(always)]
pub fn multiply_add<S: Simd, const PAIRS: bool>(s: S, a: S::V, b: S::V, c: S::V) -> S::V {
    if PAIRS { s.dot_pairs(a, b, c) } else { s.fma(a, b, c) }
}

struct Rows<const PAIRS: bool, F> {
    product: Product,
    rows: usize,
    vectors: usize,
    ks: (usize, usize),
    start: Start,
    each_k: F,
}

impl<const PAIRS: bool, F: FnMut()> Kernel for Rows<PAIRS, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let each_k = &mut self.each_k;
        // SAFETY: the contract of `Product::rows`, the only maker of this kernel.
        unsafe {
            match self.rows {
                0 => {}
                1 => self.product.columns::<S, PAIRS, 1>(s, self.vectors, self.ks, self.start, each_k),
                2 => self.product.columns::<S, PAIRS, 2>(s, self.vectors, self.ks, self.start, each_k),
                3 => self.product.columns::<S, PAIRS, 3>(s, self.vectors, self.ks, self.start, each_k),
                4 => self.product.columns::<S, PAIRS, 4>(s, self.vectors, self.ks, self.start, each_k),
                NARROW_ROWS if S::TILE_VECTORS > NARROW && self.vectors == 1 => {
                    self.product.block::<S, PAIRS, NARROW_ROWS, 1>(s, 0, self.ks, self.start, each_k);
                }
                NARROW_ROWS if S::TILE_VECTORS > NARROW && self.vectors == NARROW => {
                    self.product.block::<S, PAIRS, NARROW_ROWS, NARROW>(s, 0, self.ks, self.start, each_k);
                }
                // No values in the text: references to them would keep the operands in memory.
                _ => unreachable!("a block has the rows that `block_rows` gives it"),
            }
        }
    }
}

/// The smallest limit.
#[inline(always)]
pub fn least(limits: &[usize]) -> usize {
    limits.iter().copied().fold(KEY_TILE, usize::min)
}

/// The largest limit.
#[inline(always)]
pub fn most(limits: &[usize]) -> usize {
    limits.iter().copied().fold(0, usize::max)
}
