//! The T5 v1.1 encoder (Raffel et al. 2020; `transformers`' `T5EncoderModel`).

use crate::weights::{Block, Form, LARGEST_SIZE, MOST_HEAD_DIM, MOST_LAYERS, Manifest, Weights};
use serde::{Deserialize, Serialize};
use vidfit_tensor::{Activation, Attention, Context, DType, Error, Tensor};

/// `text_encoder/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Width of the residual stream and of the result.
    pub d_model: usize,
    /// Width of a head.
    pub d_kv: usize,
    /// Width of the gated feed-forward layer.
    pub d_ff: usize,
    /// Heads of a layer.
    pub num_heads: usize,
    /// Layers.
    pub num_layers: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Buckets of relative distance.
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distances beyond this share a bucket.
    #[serde(default = "default_max_distance")]
    pub relative_attention_max_distance: usize,
    /// Added to the mean square.
    #[serde(default = "default_eps")]
    pub layer_norm_epsilon: f32,
    /// Must be `gated-gelu`.
    pub feed_forward_proj: String,
}

fn default_buckets() -> usize {
    32
}

fn default_max_distance() -> usize {
    128
}

fn default_eps() -> f32 {
    1e-6
}

/// The key of the embedding.
const EMBEDDING: &str = "shared.weight";
/// The key of the position bias, which the first layer has for all.
const POSITION_BIAS: &str = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";

impl T5Config {
    /// Every weight of the encoder.
    pub fn manifest(&self) -> Manifest {
        let inner = self.num_heads * self.d_kv;
        let mut manifest = Manifest::default();
        let embedding = manifest.add("embedding", "");
        embedding.weight(EMBEDDING, &[self.vocab_size, self.d_model]).form = Form::HostRows;
        let bias =
            embedding.weight(POSITION_BIAS, &[self.relative_attention_num_buckets, self.num_heads]);
        bias.form = Form::HostRows;
        for layer in 0..self.num_layers {
            let name = layer_name(layer);
            let block = manifest.add(&name, &name);
            for key in ["q", "k", "v"] {
                let key = format!("layer.0.SelfAttention.{key}.weight");
                block.weight(&key, &[inner, self.d_model]);
            }
            block.weight("layer.0.SelfAttention.o.weight", &[self.d_model, inner]);
            block.weight("layer.0.layer_norm.weight", &[self.d_model]);
            for key in ["wi_0", "wi_1"] {
                let key = format!("layer.1.DenseReluDense.{key}.weight");
                block.weight(&key, &[self.d_ff, self.d_model]);
            }
            let wo = "layer.1.DenseReluDense.wo.weight";
            block.weight(wo, &[self.d_model, self.d_ff]).keep_f32 = true;
            block.weight("layer.1.layer_norm.weight", &[self.d_model]);
        }
        let tail = manifest.add("final_layer_norm", "encoder");
        tail.weight("final_layer_norm.weight", &[self.d_model]);
        manifest
    }

    /// The blocks that [`encode`] asks for, in order.
    pub fn encoder_blocks(&self) -> Vec<String> {
        let layers = (0..self.num_layers).map(layer_name);
        layers.chain(["final_layer_norm".to_owned()]).collect()
    }

    /// What this code does not compute, in words, if the configuration asks for it.
    pub fn unsupported(&self) -> Option<String> {
        if self.feed_forward_proj != "gated-gelu" {
            return Some(format!("feed_forward_proj = {}", self.feed_forward_proj));
        }
        let sizes = [
            self.d_model,
            self.d_kv,
            self.d_ff,
            self.num_heads,
            self.relative_attention_max_distance,
        ];
        if sizes.contains(&0) || sizes.iter().any(|&size| size > LARGEST_SIZE) {
            return Some(format!("a size of 0 or above {LARGEST_SIZE}"));
        }
        if self.vocab_size == 0 || self.vocab_size > 1 << 24 || self.num_layers > MOST_LAYERS {
            return Some("a vocabulary or a number of layers that makes no sense".into());
        }
        if !(4..=LARGEST_SIZE).contains(&self.relative_attention_num_buckets) {
            return Some("fewer than 4 buckets, or absurdly many".into());
        }
        (!self.d_kv.is_multiple_of(8) || self.d_kv > MOST_HEAD_DIM)
            .then(|| format!("d_kv = {}", self.d_kv))
    }

    /// The bucket of each relative position from `-(length - 1)` to `length - 1` (key minus
    /// query), bidirectional (`T5Attention._relative_position_bucket`, in f32 as there).
    fn buckets(&self, length: usize) -> Vec<usize> {
        let half = self.relative_attention_num_buckets / 2;
        let exact = half / 2;
        let spread = (self.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
        let last = length as isize - 1;
        (-last..=last)
            .map(|relative| {
                let distance = relative.unsigned_abs();
                let bucket = if distance < exact {
                    distance
                } else {
                    let log = (distance as f32 / exact as f32).ln() / spread;
                    (exact + (log * (half - exact) as f32) as usize).min(half - 1)
                };
                if relative > 0 { bucket + half } else { bucket }
            })
            .collect()
    }
}

fn layer_name(layer: usize) -> String {
    format!("encoder.block.{layer}")
}

/// Encodes prompts, given as token ids, all of one length. The results are `[ids, d_model]` in
/// `dtype`. All positions attend to all: CogVideoX passes no mask, so padding takes part.
///
/// The residual stream is f32 in every mode: in f16 it overflows (as it does in the reference,
/// which falls back to f32 there). Prompts go through each layer in turn, so a layer's weights
/// are needed once.
///
/// # Errors
/// As [`Weights::block`] and [`vidfit_tensor::Arena::alloc`].
pub fn encode(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &T5Config,
    prompts: &[&[usize]],
    dtype: DType,
) -> Result<Vec<Tensor>, Error> {
    let rows = prompts.first().map_or(0, |ids| ids.len());
    let embed = |ids: &&[usize]| {
        let mut values = match cx.arena.is_recording() {
            true => Vec::new(),
            false => weights.rows(EMBEDDING, ids)?,
        };
        values.iter_mut().for_each(|value| *value = dtype.round(*value));
        cx.upload("t5 hidden state", DType::F32, [rows, config.d_model], || values)
    };
    let mut hidden = prompts.iter().map(embed).collect::<Result<Vec<_>, Error>>()?;
    let position_bias = position_bias(cx, weights, config, rows)?;

    for layer in 0..config.num_layers {
        let name = layer_name(layer);
        let w = weights.block(&name)?;
        cx.scope(&name, || {
            hidden.iter_mut().try_for_each(|hidden| {
                cx.check()?;
                attend(cx, &w, config, dtype, &position_bias, hidden)?;
                feed_forward(cx, &w, config, dtype, hidden)
            })
        })?;
        cx.unit_done()?;
    }
    drop(position_bias);

    let w = weights.block("final_layer_norm")?;
    let finish = |hidden: Tensor| {
        let mut embeds = cx.alloc("prompt embeddings", dtype, hidden.shape())?;
        let norm = w.get("final_layer_norm.weight");
        cx.device.rms_norm(&hidden, norm, config.layer_norm_epsilon, &mut embeds);
        Ok(embeds)
    };
    hidden.into_iter().map(finish).collect()
}

fn attend(
    cx: &Context<'_>,
    w: &Block,
    config: &T5Config,
    dtype: DType,
    position_bias: &Tensor,
    hidden: &mut Tensor,
) -> Result<(), Error> {
    let (rows, inner) = (hidden.rows(), config.num_heads * config.d_kv);
    let normed = norm(cx, w, "layer.0.layer_norm", config, dtype, hidden)?;
    let project = |key: &str| -> Result<Tensor, Error> {
        let mut dst = cx.alloc(key, dtype, [rows, inner])?;
        let key = format!("layer.0.SelfAttention.{key}");
        w.linear(cx, &key, &normed, Activation::None, &mut dst);
        Ok(dst)
    };
    let (q, k, v) = (project("q")?, project("k")?, project("v")?);
    drop(normed);
    let op = Attention {
        q: &q,
        k: &k,
        v: &v,
        heads: config.num_heads,
        scale: 1.0,
        bias: Some(position_bias),
        first_column: 0,
    };
    let mut attended = q.clone();
    cx.device.attention(op, &mut attended);
    drop((q, k, v));

    let mut out = cx.alloc("attention output", DType::F32, hidden.shape())?;
    w.linear(cx, "layer.0.SelfAttention.o", &attended, Activation::None, &mut out);
    cx.device.add(&out, hidden);
    Ok(())
}

fn feed_forward(
    cx: &Context<'_>,
    w: &Block,
    config: &T5Config,
    dtype: DType,
    hidden: &mut Tensor,
) -> Result<(), Error> {
    let shape = [hidden.rows(), config.d_ff];
    let normed = norm(cx, w, "layer.1.layer_norm", config, dtype, hidden)?;
    let mut gate = cx.alloc("wi_0", dtype, shape)?;
    w.linear(cx, "layer.1.DenseReluDense.wi_0", &normed, Activation::None, &mut gate);
    let mut up = cx.alloc("wi_1", dtype, shape)?;
    w.linear(cx, "layer.1.DenseReluDense.wi_1", &normed, Activation::None, &mut up);
    drop(normed);
    cx.device.gelu_gate(&up, &mut gate);
    drop(up);
    let mut out = cx.alloc("feed-forward output", DType::F32, hidden.shape())?;
    w.linear(cx, "layer.1.DenseReluDense.wo", &gate, Activation::None, &mut out);
    cx.device.add(&out, hidden);
    Ok(())
}

fn norm(
    cx: &Context<'_>,
    w: &Block,
    key: &str,
    config: &T5Config,
    dtype: DType,
    hidden: &Tensor,
) -> Result<Tensor, Error> {
    let mut normed = cx.alloc("normed", dtype, hidden.shape())?;
    let weight = w.get(&format!("{key}.weight"));
    cx.device.rms_norm(hidden, weight, config.layer_norm_epsilon, &mut normed);
    Ok(normed)
}

/// What is added to the scores, `[heads, 2 · rows - 1]` by relative position.
fn position_bias(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &T5Config,
    rows: usize,
) -> Result<Tensor, Error> {
    let (heads, distances) = (config.num_heads, 2 * rows - 1);
    let mut by_head = Vec::new();
    if !cx.arena.is_recording() {
        let by_distance = weights.rows(POSITION_BIAS, &config.buckets(rows))?;
        let of_head = |head| by_distance.chunks_exact(heads).map(move |row| row[head]);
        by_head = (0..heads).flat_map(of_head).collect();
    }
    cx.upload("position bias", DType::F32, [heads, distances], || by_head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xxl() -> T5Config {
        serde_json::from_str(
            r#"{"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_layers": 24,
                "vocab_size": 32128, "feed_forward_proj": "gated-gelu"}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_published_encoder_has_its_parameters() {
        let manifest = xxl().manifest();
        assert_eq!(manifest.parameters(), 4_762_310_656);
        assert_eq!(manifest.weights().count(), 219);
    }

    #[test]
    fn buckets_are_exact_near_and_logarithmic_far() {
        let buckets = xxl().buckets(226);
        let at = |relative: isize| buckets[(relative + 225) as usize];
        assert_eq!((at(0), at(-1), at(-7), at(-8)), (0, 1, 7, 8));
        assert_eq!((at(1), at(7), at(8)), (17, 23, 24));
        assert_eq!(
            (at(-15), at(-16), at(-32), at(-64), at(-127), at(-225)),
            (9, 10, 12, 14, 15, 15)
        );
    }
}
