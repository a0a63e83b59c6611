//! The lowest arena by trying every order.

use staticgrad::plan::placement::Buffer;

/// Bytes of the lowest arena, or `None` where fixed buffers collide or are misaligned.
///
/// In the order of its offsets, each buffer of an optimal placement can drop to the lowest offset above the buffers before it and clear of the
/// fixed ones; so trying every order finds the optimum.
pub fn lowest_arena(buffers: &[Buffer]) -> Option<u64> {
    let (mut placed, mut free): (Vec<(Buffer, u64)>, Vec<Buffer>) = (Vec::new(), Vec::new());
    let mut height = 0;
    for &b in buffers {
        match b.fixed {
            Some(offset) if offset % b.align != 0 || placed.iter().any(|p| collide(p, &(b, offset))) => return None,
            Some(offset) => {
                placed.push((b, offset));
                height = height.max(offset + b.size);
            }
            None if b.size > 0 => free.push(b),
            None => {}
        }
    }
    let load = |step: u64| buffers.iter().filter(|b| b.lower <= step && step < b.upper).map(|b| b.size).sum();
    let bound = buffers.iter().map(|b| load(b.lower)).max().unwrap_or(0).max(height);
    let fixed = placed.len();
    let mut best = u64::MAX;
    try_orders(&mut placed, fixed, &mut free, height, bound, &mut best);
    Some(best)
}

fn collide((a, x): &(Buffer, u64), (b, y): &(Buffer, u64)) -> bool {
    a.size > 0 && b.size > 0 && a.lower < b.upper && b.lower < a.upper && *x < y + b.size && *y < x + a.size
}

fn try_orders(
    placed: &mut Vec<(Buffer, u64)>,
    fixed: usize,
    free: &mut Vec<Buffer>,
    height: u64,
    bound: u64,
    best: &mut u64,
) {
    if height >= *best || *best == bound {
        return;
    }
    if free.is_empty() {
        *best = height;
        return;
    }
    for k in 0..free.len() {
        let b = free.swap_remove(k);
        let above = placed[fixed..].iter().filter(|(p, _)| p.lower < b.upper && b.lower < p.upper);
        let mut offset = above.map(|(p, x)| x + p.size).max().unwrap_or(0).next_multiple_of(b.align);
        while let Some((p, x)) = placed[..fixed].iter().find(|p| collide(p, &(b, offset))) {
            offset = (x + p.size).next_multiple_of(b.align);
        }
        placed.push((b, offset));
        try_orders(placed, fixed, free, height.max(offset + b.size), bound, best);
        placed.pop();
        free.push(b);
        let last = free.len() - 1;
        free.swap(k, last);
    }
}
