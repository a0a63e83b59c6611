//! Against `tests/fixtures/quant.safetensors`: random blocks and what gguf-py (and PyTorch for 16-bit floats) makes of them.

use super::*;
use safetensors::SafeTensors;

const FIXTURE: &[u8] = include_bytes!("../../../tests/fixtures/quant.safetensors");

fn bytes_of(name: &str) -> Vec<u8> {
    SafeTensors::deserialize(FIXTURE).unwrap().tensor(name).unwrap().data().to_vec()
}

fn floats_of(name: &str) -> Vec<f32> {
    bytes_of(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn every_type_dequantizes_to_the_bits_of_the_reference() {
    for dtype in DType::ALL.into_iter().filter(|d| !matches!(d, DType::F32 | DType::I32 | DType::U8)) {
        let expected = floats_of(&format!("{dtype}.f32"));
        // One byte of padding in front: mapped tensors need not be aligned.
        let mut padded = vec![0];
        padded.extend(bytes_of(&format!("{dtype}.bytes")));
        let mut out = vec![f32::NAN; expected.len()];
        dequantize(dtype, &padded[1..], &mut out);
        for (i, (a, b)) in out.iter().zip(&expected).enumerate() {
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{dtype} value {i}: {a} against {b}");
        }
    }
}

#[test]
fn quantisers_write_the_bytes_of_the_reference() {
    let values = floats_of("values");
    for dtype in [DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1] {
        let expected = bytes_of(&format!("{dtype}.quantized"));
        let mut out = vec![0xaa; expected.len()];
        quantize(dtype, &values, &mut out);
        let first = out.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(first, None, "{dtype} first differs at this byte");
    }
}

#[test]
fn f32_survives_both_ways() {
    let values = floats_of("values");
    let mut bytes = vec![0; 4 * values.len()];
    quantize(DType::F32, &values, &mut bytes);
    let mut back = vec![0.0; values.len()];
    dequantize(DType::F32, &bytes, &mut back);
    assert_eq!(values, back);
}

#[test]
fn rounding_is_half_away_from_zero() {
    let mut values = [0.0f32; 32];
    values[..4].copy_from_slice(&[127.0, 0.5, -0.5, 2.5]);
    let mut out = [0u8; 34];
    quantize(DType::Q8_0, &values, &mut out);
    assert_eq!(&out[2..6], &[127, 1, (-1i8) as u8, 3]);
}

#[test]
#[should_panic(expected = "64 values of q8_0")]
fn a_wrong_length_is_a_broken_invariant() {
    dequantize(DType::Q8_0, &[0; 67], &mut [0.0; 64]);
}
