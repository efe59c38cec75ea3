//! One block: attention over text and video, then feed-forward, each behind a modulated norm and
//! added back through a gate.

use super::TransformerConfig;
use super::TransformerSchedule;
use super::conditioning::{BlockModulation, Modulation, StreamModulation};
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

/// The rows of a half in chunks of at most `rows`, text before video, each with the modulation of
/// its stream.
fn streams<'a>(
    half: &Half,
    rows: usize,
    modulation: &'a Modulation,
) -> impl Iterator<Item = (Range<usize>, &'a StreamModulation)> {
    let (text, end) = (half.text_rows, half.hidden.rows());
    let text = chunks(0..text, rows).map(|range| (range, &modulation.text));
    text.chain(chunks(half.text_rows..end, rows).map(|range| (range, &modulation.video)))
}

/// Runs one block over one half, in place.
pub(super) fn run(
    cx: &Context<'_>,
    w: &Block,
    config: &TransformerConfig,
    schedule: TransformerSchedule,
    modulation: &BlockModulation,
    rope: Option<Rope<'_>>,
    half: &Half,
) -> Result<(), Error> {
    cx.check()?;
    let attended = attend(cx, w, config, schedule, &modulation.attention, rope, half)?;
    project_out(cx, w, schedule, &modulation.attention, attended, half)?;
    feed_forward(cx, w, config, schedule, &modulation.feed_forward, half)
}

/// Attention of a half, before its last projection, some heads at a time.
fn attend(
    cx: &Context<'_>,
    w: &Block,
    config: &TransformerConfig,
    schedule: TransformerSchedule,
    modulation: &Modulation,
    rope: Option<Rope<'_>>,
    half: &Half,
) -> Result<Tensor, Error> {
    let (groups, inner) = (schedule.head_groups, config.inner_dim());
    let heads = config.num_attention_heads / groups;
    assert_eq!(heads * groups, config.num_attention_heads, "heads in {groups} groups");
    let mut attended = match groups {
        1 => None,
        _ => Some(cx.alloc("attended", half.hidden.dtype(), half.hidden.shape())?),
    };
    for columns in chunks(0..inner, inner / groups) {
        let first_column = columns.start;
        let [mut q, mut k, v] = project(cx, w, config, schedule, modulation, columns, half)?;
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
        // The result of all heads goes over their queries, that of a few into its columns.
        let mut dst = attended.take().unwrap_or_else(|| q.clone());
        let op = Attention {
            q: &q,
            k: &k,
            v: &v,
            heads,
            scale: 1.0 / (config.attention_head_dim as f32).sqrt(),
            bias: None,
            first_column,
        };
        cx.device.attention(op, &mut dst);
        attended = Some(dst);
    }
    Ok(attended.expect("there is a group of heads"))
}

/// Queries, keys and values of some heads: those that have these `columns`. The norm before them
/// is never held as a whole.
fn project(
    cx: &Context<'_>,
    w: &Block,
    config: &TransformerConfig,
    schedule: TransformerSchedule,
    modulation: &Modulation,
    columns: Range<usize>,
    half: &Half,
) -> Result<[Tensor; 3], Error> {
    let dtype = half.hidden.dtype();
    let keys = ["to_q", "to_k", "to_v"];
    let alloc = |key| cx.alloc(key, dtype, [half.hidden.rows(), columns.len()]);
    let projected = [alloc(keys[0])?, alloc(keys[1])?, alloc(keys[2])?];
    for (rows, modulation) in streams(half, schedule.rows, modulation) {
        let x = half.hidden.slice(rows.clone());
        let mut normed = cx.alloc("normed", dtype, x.shape())?;
        norm(cx, w, "norm1", config, &x, modulation, &mut normed);
        for (key, dst) in keys.iter().zip(&projected) {
            let (layer, dst) = (format!("attn1.{key}"), &mut dst.slice(rows.clone()));
            w.linear_part(cx, &layer, columns.clone(), &normed, Activation::None, dst);
        }
    }
    Ok(projected)
}

/// The last projection of attention, and its residual.
fn project_out(
    cx: &Context<'_>,
    w: &Block,
    schedule: TransformerSchedule,
    modulation: &Modulation,
    attended: Tensor,
    half: &Half,
) -> Result<(), Error> {
    for (rows, modulation) in streams(half, schedule.rows, modulation) {
        let attended = attended.slice(rows.clone());
        let mut out = cx.alloc("attention output", attended.dtype(), attended.shape())?;
        w.linear(cx, "attn1.to_out.0", &attended, Activation::None, &mut out);
        cx.device.gated_residual(&out, &modulation.gate, &mut half.hidden.slice(rows));
    }
    Ok(())
}

fn feed_forward(
    cx: &Context<'_>,
    w: &Block,
    config: &TransformerConfig,
    schedule: TransformerSchedule,
    modulation: &Modulation,
    half: &Half,
) -> Result<(), Error> {
    let (dtype, inner) = (half.hidden.dtype(), config.inner_dim());
    for (rows, modulation) in streams(half, schedule.rows, modulation) {
        cx.check()?;
        let mut x = half.hidden.slice(rows.clone());
        let mut normed = cx.alloc("normed", dtype, x.shape())?;
        norm(cx, w, "norm2", config, &x, modulation, &mut normed);
        let mut wide = cx.alloc("feed-forward inner", dtype, [rows.len(), 4 * inner])?;
        w.linear(cx, "ff.net.0.proj", &normed, Activation::GeluTanh, &mut wide);
        drop(normed);
        let mut out = cx.alloc("feed-forward output", dtype, x.shape())?;
        w.linear(cx, "ff.net.2", &wide, Activation::None, &mut out);
        drop(wide);
        cx.device.gated_residual(&out, &modulation.gate, &mut x);
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
    modulation: &StreamModulation,
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
