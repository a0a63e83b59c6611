//! Words of rows, of spread rows and of rows in bf16, by definition and by instruction set.

use super::*;

#[test]
fn words_of_any_count_and_remainder_land_in_place() {
    for isa in Isa::available() {
        for word in [Word::F32, Word::Bf16Pair] {
            for k in [0, 1, 2, 15, 16, 17, 31, 33, 64, 67] {
                for rows in [1, 2, 7, 12, 16] {
                    let values: Vec<Vec<f32>> =
                        (0..rows).map(|r| (0..k).map(|i| (r * 1000 + i) as f32 * 1.001 - 70.0).collect()).collect();
                    let rows: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
                    let pitch = rows.len() + 3;
                    let mut dst = vec![7; word.count(k) * pitch + 5];
                    interleave(isa, word, &rows, &mut dst, pitch);
                    for (i, d) in dst.iter().enumerate() {
                        let (w, r) = (i / pitch, i % pitch);
                        let expected = match word {
                            _ if w + 1 < word.count(k) && r >= rows.len() => continue,
                            _ if r >= rows.len() || w >= word.count(k) => 7,
                            Word::F32 => rows[r][w].to_bits(),
                            Word::Bf16Pair => pair(rows[r][2 * w], rows[r].get(2 * w + 1).copied().unwrap_or(0.0)),
                        };
                        assert_eq!(*d, expected, "{} {word:?} k={k} rows={} at {i}", isa.name(), rows.len());
                    }
                }
            }
        }
    }
}

#[test]
fn stored_rows_spread_over_blocks() {
    let blocks = [(0, 12), (12, 11), (23, 11), (34, 32)];
    let n = 50;
    for k in [1, 2, 5, 24, 31] {
        let values: Vec<f32> = (0..k * (n + 1)).map(|i| i as f32 * 1.01 - 300.0).collect();
        let stored = View::new(&values, k, n + 1, n);
        for (isa, word) in Isa::available().into_iter().flat_map(|isa| [(isa, Word::F32), (isa, Word::Bf16Pair)]) {
            let words = word.count(k);
            let mut dst = vec![7; words * 66 + 3];
            // A gap after the first block.
            let blocks = blocks.map(|(first, count)| Block {
                first,
                count,
                start: first * words + if first > 0 { 3 } else { 0 },
            });
            spread(isa, word, &stored, &blocks, &mut dst);
            for Block { first, count, start } in blocks {
                for (i, d) in dst[start..][..count * words].iter().enumerate() {
                    let (w, c) = (i / count, first + i % count);
                    let expected = match word {
                        _ if c >= n => 7,
                        Word::F32 => stored.row(w)[c].to_bits(),
                        Word::Bf16Pair if 2 * w + 1 < k => pair(stored.row(2 * w)[c], stored.row(2 * w + 1)[c]),
                        Word::Bf16Pair => pair(stored.row(2 * w)[c], 0.0),
                    };
                    assert_eq!(*d, expected, "{} {word:?} k={k} word {w} column {c}", isa.name());
                }
            }
        }
    }
}

#[test]
fn rows_of_bf16_give_the_words_of_what_they_stand_for() {
    let blocks = [(0, 12), (12, 11), (23, 32)];
    for (k, n) in [(1, 50), (5, 50), (24, 55), (37, 55)] {
        let narrow: Vec<bf16> = (0..k * n).map(|i| bf16::from_f32(i as f32 * 0.37 - 300.0)).collect();
        let wide: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
        for (isa, word) in Isa::available().into_iter().flat_map(|isa| [(isa, Word::F32), (isa, Word::Bf16Pair)]) {
            let blocks = blocks.map(|(first, count)| Block { first, count, start: first * word.count(k) });
            let mut dst = [(); 2].map(|()| vec![0; word.count(k) * 55]);
            spread(isa, word, &View::new(&narrow, k, n, n), &blocks, &mut dst[0]);
            spread(isa, word, &View::new(&wide, k, n, n), &blocks, &mut dst[1]);
            assert_eq!(dst[0], dst[1], "{} {word:?} spread {k} × {n}", isa.name());
            let rows = k.min(12);
            let mut dst = [(); 2].map(|()| vec![0; word.count(n) * rows]);
            let narrow: Vec<&[bf16]> = narrow.chunks(n).take(rows).collect();
            let wide: Vec<&[f32]> = wide.chunks(n).take(rows).collect();
            interleave(isa, word, &narrow, &mut dst[0], rows);
            interleave(isa, word, &wide, &mut dst[1], rows);
            assert_eq!(dst[0], dst[1], "{} {word:?} interleaved {k} × {n}", isa.name());
        }
    }
}

#[test]
fn rounding_is_to_nearest_even_and_keeps_nan() {
    let tie = 1.0 / 256.0;
    let values = [1.0, 1.0 + tie, 1.0 + 3.0 * tie, -3.389e38, f32::INFINITY, f32::NAN, 0.0, -0.0, 1.004];
    for isa in Isa::available() {
        let mut dst = [0; 5];
        interleave(isa, Word::Bf16Pair, &[&values], &mut dst, 1);
        for (i, v) in values.iter().enumerate() {
            let got = bf16::from_bits((dst[i / 2] >> (16 * (i % 2))) as u16);
            assert!(got == bf16::from_f32(*v) || got.is_nan() && v.is_nan(), "{}: {v} became {got}", isa.name());
        }
    }
}
