//! One block: attention over text and video, then feed-forward, each behind a modulated norm and
//! added back through a gate.

use super::TransformerConfig;
use super::TransformerSchedule;
use super::conditioning::{BlockModulation, Modulation};
use crate::weights::Block;
use std::ops::Range;
use vidfit_tensor::{Activation, Attention, Context, Error, LayerNorm, QkNorm, Rope, Tensor};

/// The eps of the reference's norms of queries and keys, which no configuration holds.
const QK_NORM_EPS: f32 = 1e-6;

/// The hidden state of one half of guidance: text rows, then video rows.
pub(super) struct Half {
    /// `[text + video, D]`.
    pub hidden: Tensor,
    /// How many rows are text.
    pub text_rows: usize,
}

impl Half {
    /// The text rows.
    pub fn text(&self) -> Tensor {
        self.hidden.slice(0..self.text_rows)
    }

    /// The video rows.
    pub fn video(&self) -> Tensor {
        self.hidden.slice(self.text_rows..self.hidden.rows())
    }
}

/// Cuts `range` into pieces of at most `rows`.
pub(super) fn chunks(range: Range<usize>, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(rows).map(move |start| start..(start + rows).min(end))
}

/// Runs one block over one half, in place.
pub(super) fn run(
    cx: &Context<'_>,
    w: &Block,
    config: &TransformerConfig,
    schedule: TransformerSchedule,
    modulation: &BlockModulation,
    rope: Option<Rope<'_>>,
    half: &mut Half,
) -> Result<(), Error> {
    cx.check()?;
    attend(cx, w, config, &modulation.attention, rope, half)?;
    feed_forward(cx, w, config, schedule, &modulation.feed_forward, half)
}

fn attend(
    cx: &Context<'_>,
    w: &Block,
    config: &TransformerConfig,
    modulation: &Modulation,
    rope: Option<Rope<'_>>,
    half: &mut Half,
) -> Result<(), Error> {
    let (dtype, shape) = (half.hidden.dtype(), half.hidden.shape());
    let (text, rows) = (half.text_rows, half.hidden.rows());

    let normed = cx.alloc("normed", dtype, shape)?;
    norm(cx, w, "norm1", config, &half.text(), &modulation.text, &mut normed.slice(0..text));
    norm(cx, w, "norm1", config, &half.video(), &modulation.video, &mut normed.slice(text..rows));
    let project = |key: &str| -> Result<Tensor, Error> {
        let mut dst = cx.alloc(key, dtype, shape)?;
        w.linear(cx, &format!("attn1.{key}"), &normed, Activation::None, &mut dst);
        Ok(dst)
    };
    let (mut q, mut k, v) = (project("to_q")?, project("to_k")?, project("to_v")?);
    drop(normed);

    for (key, x) in [("norm_q", &mut q), ("norm_k", &mut k)] {
        let op = QkNorm {
            weight: w.get(&format!("attn1.{key}.weight")),
            bias: w.get(&format!("attn1.{key}.bias")),
            eps: QK_NORM_EPS,
            rope,
        };
        cx.device.qk_norm(op, x);
    }
    cx.check()?;
    let op = Attention {
        q: &q,
        k: &k,
        v: &v,
        heads: config.num_attention_heads,
        scale: 1.0 / (config.attention_head_dim as f32).sqrt(),
        bias: None,
    };
    let mut attended = q.clone();
    cx.device.attention(op, &mut attended);
    drop((q, k, v));

    let mut out = cx.alloc("attention output", dtype, shape)?;
    w.linear(cx, "attn1.to_out.0", &attended, Activation::None, &mut out);
    drop(attended);
    cx.device.gated_residual(&out.slice(0..text), &modulation.text.gate, &mut half.text());
    cx.device.gated_residual(&out.slice(text..rows), &modulation.video.gate, &mut half.video());
    Ok(())
}

fn feed_forward(
    cx: &Context<'_>,
    w: &Block,
    config: &TransformerConfig,
    schedule: TransformerSchedule,
    modulation: &Modulation,
    half: &mut Half,
) -> Result<(), Error> {
    let (dtype, inner) = (half.hidden.dtype(), config.inner_dim());
    let streams = [(half.text(), &modulation.text), (half.video(), &modulation.video)];
    for (stream, modulation) in streams {
        for rows in chunks(0..stream.rows(), schedule.feed_forward_rows) {
            cx.check()?;
            let mut x = stream.slice(rows.clone());
            let mut normed = cx.alloc("normed", dtype, [rows.len(), inner])?;
            norm(cx, w, "norm2", config, &x, modulation, &mut normed);
            let mut wide = cx.alloc("feed-forward inner", dtype, [rows.len(), 4 * inner])?;
            w.linear(cx, "ff.net.0.proj", &normed, Activation::GeluTanh, &mut wide);
            drop(normed);
            let mut out = cx.alloc("feed-forward output", dtype, [rows.len(), inner])?;
            w.linear(cx, "ff.net.2", &wide, Activation::None, &mut out);
            drop(wide);
            cx.device.gated_residual(&out, &modulation.gate, &mut x);
        }
    }
    Ok(())
}

/// `CogVideoXLayerNormZero`: both streams share the norm, each has its own modulation.
fn norm(
    cx: &Context<'_>,
    w: &Block,
    key: &str,
    config: &TransformerConfig,
    x: &Tensor,
    modulation: &super::conditioning::StreamModulation,
    dst: &mut Tensor,
) {
    let op = LayerNorm {
        x,
        weight: w.get(&format!("{key}.norm.weight")),
        bias: w.get(&format!("{key}.norm.bias")),
        eps: config.norm_eps,
        modulation: Some((&modulation.shift, &modulation.scale)),
    };
    cx.device.layer_norm(op, dst);
}
