//! The video transformer (`CogVideoXTransformer3DModel`; Yang et al. 2024, "CogVideoX", §2.2):
//! text and video tokens in one sequence, with expert adaptive layer norms.
//!
//! What depends on the step alone (all modulations, the projected text) is computed once per run
//! by [`Conditioning::prepare`]; [`predict`] is one step. The halves of classifier-free guidance
//! go through each block in turn, so a block's weights are needed once per step.

mod block;
mod conditioning;
mod config;

pub use crate::positions::Grid;
pub use conditioning::Conditioning;
pub use config::TransformerConfig;

use crate::weights::Weights;
use block::Half;
use serde::{Deserialize, Serialize};
use vidfit_tensor::{Activation, Context, DType, Error, LayerNorm, Tensor};

/// How the work is cut up. Changes memory and speed, never a bit of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TransformerSchedule {
    /// Tokens that pass through norms, projections and feed-forward layers at a time.
    pub rows: usize,
    /// Parts, of as many heads each, in which attention is computed: a divisor of the number of
    /// heads. With `n` > 1 of them a block holds one tensor as large as the hidden state, and
    /// `3 / n` of one; with a single one, three.
    pub head_groups: usize,
}

impl Default for TransformerSchedule {
    fn default() -> Self {
        TransformerSchedule { rows: 2048, head_groups: 1 }
    }
}

/// Predicts the velocity for step number `step` of the conditioning's schedule: one tensor
/// `[F, C, h, w]` for each prompt that it was prepared with, in their order.
///
/// `latents` are one or, for image conditioning, two tensors `[F, C, h, w]` that are joined on
/// channels.
///
/// # Errors
/// As [`Weights::block`], [`vidfit_tensor::Arena::alloc`] and [`Context::unit_done`].
///
/// # Panics
/// If the schedule has no rows, or parts of unequal numbers of heads.
pub fn predict(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &TransformerConfig,
    schedule: TransformerSchedule,
    conditioning: &Conditioning,
    step: usize,
    latents: &[&Tensor],
) -> Result<Vec<Tensor>, Error> {
    let dtype = conditioning.dtype;
    let modulations = conditioning.modulations(cx, step)?;
    let halves = embed(cx, weights, config, conditioning, latents)?;

    for layer in 0..config.num_layers {
        let name = config::block_name(layer);
        let w = weights.block(&name)?;
        let modulation = modulations.block(layer);
        cx.scope(&name, || {
            let run = |half: &Half| {
                block::run(cx, &w, config, schedule, &modulation, conditioning.rope(), half)
            };
            halves.iter().try_for_each(run)
        })?;
        cx.unit_done()?;
    }

    let w = weights.block("tail")?;
    let outputs = halves.into_iter().map(|half| {
        let patches = project_out(cx, &w, config, schedule, dtype, modulations.tail(), half)?;
        let [frames, _, height, width] = latents[0].dims() else {
            panic!("latents are [F, C, h, w], not {:?}", latents[0]);
        };
        let shape = [*frames, config.out_channels, *height, *width];
        let mut velocity = cx.alloc("velocity", dtype, shape)?;
        cx.device.unpatchify(&patches, config.patch(), &mut velocity);
        Ok(velocity)
    });
    outputs.collect()
}

/// Text rows, then video rows, for each half; the video rows are the same in all.
fn embed(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &TransformerConfig,
    conditioning: &Conditioning,
    latents: &[&Tensor],
) -> Result<Vec<Half>, Error> {
    let (dtype, grid) = (conditioning.dtype, conditioning.grid);
    let (text_rows, rows) = (conditioning.text_rows(), conditioning.text_rows() + grid.tokens());
    let w = weights.block("patch_embed")?;

    let shape = [grid.tokens(), config.patch_features()];
    let mut patches = cx.alloc("patches", dtype, shape)?;
    cx.device.patchify(latents, config.patch(), &mut patches);

    let mut halves: Vec<Half> = Vec::new();
    for text in &conditioning.text {
        let hidden = cx.alloc("hidden state", dtype, [rows, config.inner_dim()])?;
        let half = Half { hidden, text_rows };
        cx.device.cast(text, &mut half.text());
        match halves.first() {
            None => w.linear(cx, "proj", &patches, Activation::None, &mut half.video()),
            Some(first) => cx.device.cast(&first.video(), &mut half.video()),
        }
        halves.push(half);
    }
    drop(patches);
    if let Some(positions) = &conditioning.positions {
        for half in &halves {
            let first = rows - positions.rows();
            cx.device.add(positions, &mut half.hidden.slice(first..rows));
        }
    }
    Ok(halves)
}

/// The tail: two layer norms in a row, the second modulated, and the projection to patches.
fn project_out(
    cx: &Context<'_>,
    w: &crate::weights::Block,
    config: &TransformerConfig,
    schedule: TransformerSchedule,
    dtype: DType,
    (shift, scale): (Tensor, Tensor),
    half: Half,
) -> Result<Tensor, Error> {
    let video = half.video();
    let width = config.patch_outputs();
    let patches = cx.alloc("output patches", dtype, [video.rows(), width])?;
    for rows in block::chunks(0..video.rows(), schedule.rows) {
        let mut normed = cx.alloc("normed", dtype, [rows.len(), config.inner_dim()])?;
        let norm = |x: &Tensor, key: &str, modulation, dst: &mut Tensor| {
            let op = LayerNorm {
                x,
                weight: w.get(&format!("{key}.weight")),
                bias: w.get(&format!("{key}.bias")),
                eps: config.norm_eps,
                modulation,
            };
            cx.device.layer_norm(op, dst);
        };
        norm(&video.slice(rows.clone()), "norm_final", None, &mut normed);
        let once = normed.clone();
        norm(&once, "norm_out.norm", Some((&shift, &scale)), &mut normed);
        w.linear(cx, "proj_out", &normed, Activation::None, &mut patches.slice(rows));
    }
    Ok(patches)
}
