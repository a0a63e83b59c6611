//! `linear(x; W, b)`: y = x·Wᵀ + b (`layout = "out_in"`, W: [N, K]) or y = x·W + b (`layout = "in_out"`, W: [K, N]).
//!
//! x: rows × K; y: rows × N, split by columns into several outputs on demand. d_x = dy·W (or dy·Wᵀ), dW = dyᵀ·x (or xᵀ·dy),
//! db = Σ_rows dy.
//!
//! Fused forms, which passes make and specs need not know, are attributes of the same op:
//! `weights = n` products of one x side by side (q, k, v); `activation` after the bias (`swiglu` takes two weights:
//! silu(x·W₁) · (x·W₂)); `residual` added last; `norm` of x before the product.
//! `storage = "plain"` (training) reads the weight as the checkpoint stores it and takes no fused form.
//! Operands: x, norm weight, norm bias, weights, biases, residual; those that the attributes do not ask for are left out.

mod backward;
mod epilogue;
mod mixed_pair;
mod packed;
mod plain;
pub(super) mod shape;

use super::{Case, Cost, GradBuilder, Kernel, Op, ParamSpec, RefTensor, Signature, product, rule};
use crate::graph::{Attr, Attrs, Init, Layout, TensorId};
use crate::tensor::{RowExtent, Shape, TensorType};
pub use backward::{LinearDBias, LinearDInput, LinearDWeight};
use shape::{Form, Storage};

/// Matrix product with optional bias.
pub struct Linear;

impl Op for Linear {
    fn keyword(&self) -> &'static str {
        "linear"
    }
    fn doc(&self) -> &'static str {
        "linear(x, PATH, out = N, bias = false, layout = \"out_in\" | \"in_out\", split = [..]): x·Wᵀ + b or x·W + b; split gives several outputs."
    }
    fn attributes(&self) -> &'static [&'static str] {
        &["out", "bias", "layout", "split", "weights", "activation", "residual", "norm", "eps"]
    }
    fn params(&self, attrs: &Attrs, inputs: &[TensorType]) -> Result<Vec<ParamSpec>, String> {
        let (n, k) = (attrs.size("out")?, rule::width(inputs, 0)?);
        let layout = shape::layout(attrs)?;
        let shape = Shape::new(if layout == Layout::OutIn { [n, k] } else { [k, n] });
        let mut specs = vec![ParamSpec { suffix: "weight", shape, init: Init::Normal(0.02), decay: true, layout }];
        if attrs.bool_or("bias", false)? {
            let shape = Shape::new([n]);
            specs.push(ParamSpec { suffix: "bias", shape, init: Init::Zeros, decay: false, layout: Layout::Plain });
        }
        Ok(specs)
    }
    fn infer(&self, attrs: &Attrs, operands: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let form = Form::of(attrs, operands)?;
        Ok(form.parts.iter().map(|&w| rule::rows_like(operands, w)).collect())
    }
    fn may_alias(&self, sig: &Signature, operand: usize, output: usize) -> bool {
        let residual = Form::of(&sig.attrs, &sig.operands).ok().and_then(|f| f.residual);
        output == 0 && residual == Some(operand)
    }
    fn grad(&self, g: &mut GradBuilder) -> Result<Vec<Option<TensorId>>, String> {
        backward::grad(g)
    }
    fn cost(&self, sig: &Signature, rows: usize, _context: usize) -> Cost {
        let Ok(form) = Form::of(&sig.attrs, &sig.operands) else { return Cost::default() };
        let n: usize = form.outs.iter().sum();
        let y: usize = form.parts.iter().sum();
        Cost { flops: 2.0 * (rows * n) as f64 * form.k as f64, bytes: 4.0 * (rows * (form.k + y)) as f64 }
    }
    fn kernel(&self, sig: &Signature) -> Result<Box<dyn Kernel>, String> {
        let form = Form::of(&sig.attrs, &sig.operands)?;
        Ok(match shape::storage(&sig.attrs)? {
            Storage::Packed => Box::new(packed::PackedKernel::new(form)),
            Storage::Plain => Box::new(plain::PlainKernel::new(form, product::precision(&sig.attrs)?)),
        })
    }
    fn reference(&self, sig: &Signature, _case: &Case, x: &[RefTensor]) -> Option<Vec<RefTensor>> {
        let form = Form::of(&sig.attrs, &sig.operands).ok()?;
        shape::reference(&form, x)
    }
    fn cases(&self) -> Vec<Case> {
        let ty = TensorType { extent: RowExtent::Step, ..rule::fixed_type(&[37]) };
        let attrs = |layout: &str, bias: bool| {
            Attrs::new()
                .with("out", Attr::Int(45))
                .with("layout", Attr::Str(layout.into()))
                .with("bias", Attr::Bool(bias))
        };
        let case = |name, attrs| Case { name, attrs, inputs: vec![ty.clone()], slots: 2, rows: 9, int_limit: 0 };
        vec![
            case("out_in", attrs("out_in", false)),
            case("in_out_bias", attrs("in_out", true)),
            case("split", attrs("in_out", true).with("split", Attr::Ints(vec![16, 16, 13]))),
        ]
    }
}
