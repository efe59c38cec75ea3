//! The five published models, built in: enough to plan with before anything is downloaded.
//!
//! Configurations as in the published `config.json` files; `tests/published.rs` holds the manifests
//! that follow from them against the published lists of tensors, and opening real files holds them
//! against their headers.

use super::{Checkpoint, Component, Place, Variant};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use vidfit_cogvideox::scheduler::{SchedulerConfig, SchedulerKind, TimestepRule, TimestepSpacing};
use vidfit_cogvideox::t5::T5Config;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::VaeConfig;
use vidfit_tensor::DType;

impl Variant {
    /// All of them.
    pub const ALL: [Variant; 5] =
        [Variant::TwoB, Variant::FiveB, Variant::FiveBI2v, Variant::OneFive, Variant::OneFiveI2v];

    /// The variant that a name of a model speaks of: `5b`, `CogVideoX-5b`, `zai-org/CogVideoX-5b`,
    /// in any case; or none.
    pub fn named(name: &str) -> Option<Variant> {
        let last = name.rsplit('/').next()?.split('@').next()?.to_ascii_lowercase();
        let plain = last.strip_prefix("cogvideox").unwrap_or(&last).trim_start_matches('-');
        match plain {
            "2b" => Some(Variant::TwoB),
            "5b" => Some(Variant::FiveB),
            "5b-i2v" => Some(Variant::FiveBI2v),
            "1.5" | "1.5-5b" => Some(Variant::OneFive),
            "1.5-i2v" | "1.5-5b-i2v" => Some(Variant::OneFiveI2v),
            _ => None,
        }
    }

    /// The id that it is published under.
    pub fn id(self) -> String {
        format!("zai-org/{}", self.name())
    }

    /// `transformer/config.json`.
    pub fn transformer_config(self) -> TransformerConfig {
        let two_b = TransformerConfig::default();
        let five_b = TransformerConfig {
            num_attention_heads: 48,
            num_layers: 42,
            use_rotary_positional_embeddings: true,
            ..two_b.clone()
        };
        let one_five = TransformerConfig {
            patch_size_t: Some(2),
            sample_width: 300,
            sample_height: 300,
            sample_frames: 81,
            ..five_b.clone()
        };
        match self {
            Variant::TwoB => two_b,
            Variant::FiveB => five_b,
            Variant::FiveBI2v => TransformerConfig {
                in_channels: 32,
                use_learned_positional_embeddings: true,
                ..five_b
            },
            Variant::OneFive => one_five,
            Variant::OneFiveI2v => {
                TransformerConfig { in_channels: 32, ofs_embed_dim: Some(512), ..one_five }
            }
        }
    }

    /// `vae/config.json`.
    pub fn vae_config(self) -> VaeConfig {
        VaeConfig {
            scaling_factor: if self == Variant::TwoB { 1.15258426 } else { 0.7 },
            invert_scale_latents: self.is_one_five(),
            ..VaeConfig::default()
        }
    }

    /// `scheduler/scheduler_config.json`, with the class that the publishers recommend.
    pub fn scheduler_config(self) -> SchedulerConfig {
        let two_b = self == Variant::TwoB;
        SchedulerConfig {
            kind: if two_b { SchedulerKind::Ddim } else { SchedulerKind::Dpm },
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            set_alpha_to_one: true,
            steps_offset: 0,
            timestep_spacing: TimestepSpacing::Trailing,
            rescale_betas_zero_snr: true,
            snr_shift_scale: if two_b { 3.0 } else { 1.0 },
            timestep_rule: TimestepRule::Reference,
        }
    }
}

/// `text_encoder/config.json` of all of them.
pub(super) fn t5_xxl() -> T5Config {
    T5Config {
        d_model: 4096,
        d_kv: 64,
        d_ff: 10240,
        num_heads: 64,
        num_layers: 24,
        vocab_size: 32128,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: "gated-gelu".into(),
    }
}

impl Checkpoint {
    /// A published model without its files: it can be planned, not run. Weights count as stored in
    /// the published type.
    pub fn published(variant: Variant) -> Checkpoint {
        let dtype = variant.published_dtype();
        Checkpoint {
            place: Place::from(&variant.id()),
            variant,
            text_encoder: Arc::new(Component::without_weights(t5_xxl(), dtype)),
            transformer: Arc::new(Component::without_weights(variant.transformer_config(), dtype)),
            vae: Arc::new(Component::without_weights(variant.vae_config(), dtype)),
            scheduler: variant.scheduler_config(),
            tokenizer: None,
        }
    }

    /// A model of published widths, cut to so many layers, with random weights of `dtype`: what
    /// memory and time are measured with where there are no weights. Prompts are token ids of
    /// their length.
    pub fn random(variant: Variant, text_layers: usize, layers: usize, dtype: DType) -> Checkpoint {
        let t5 = T5Config { num_layers: text_layers, ..t5_xxl() };
        let transformer = TransformerConfig { num_layers: layers, ..variant.transformer_config() };
        Checkpoint {
            text_encoder: Arc::new(Component::with_random_weights(t5, dtype)),
            transformer: Arc::new(Component::with_random_weights(transformer, dtype)),
            vae: Arc::new(Component::with_random_weights(variant.vae_config(), dtype)),
            ..Checkpoint::published(variant)
        }
    }

    /// A published model, whole, with random weights that cost no time: to measure how fast a device is.
    pub fn pooled(variant: Variant) -> Checkpoint {
        let dtype = variant.published_dtype();
        let transformer = variant.transformer_config();
        Checkpoint {
            text_encoder: Arc::new(Component::with_pooled_weights(t5_xxl(), dtype)),
            transformer: Arc::new(Component::with_pooled_weights(transformer, dtype)),
            vae: Arc::new(Component::with_pooled_weights(variant.vae_config(), dtype)),
            ..Checkpoint::published(variant)
        }
    }
}

/// In which fields the configurations of `checkpoint` differ from those that are built in for its
/// variant, such as `transformer.num_layers`: what was planned without the files holds where there
/// are none.
pub fn differences(checkpoint: &Checkpoint) -> Vec<String> {
    let built_in = Checkpoint::published(checkpoint.variant);
    let mut found =
        fields("text_encoder", &checkpoint.text_encoder.config, &built_in.text_encoder.config);
    found.extend(fields(
        "transformer",
        &checkpoint.transformer.config,
        &built_in.transformer.config,
    ));
    found.extend(fields("vae", &checkpoint.vae.config, &built_in.vae.config));
    found
}

fn fields(component: &str, ours: &impl Serialize, theirs: &impl Serialize) -> Vec<String> {
    let (Ok(Value::Object(ours)), Ok(Value::Object(theirs))) =
        (serde_json::to_value(ours), serde_json::to_value(theirs))
    else {
        return vec![component.to_owned()];
    };
    let differs = |field: &&String| ours.get(*field) != theirs.get(*field);
    ours.keys().filter(differs).map(|field| format!("{component}.{field}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_known_in_any_spelling() {
        for variant in Variant::ALL {
            for name in [variant.name().to_owned(), variant.id(), variant.name().to_lowercase()] {
                assert_eq!(Variant::named(&name), Some(variant), "{name}");
            }
            assert_eq!(Variant::of(&variant.transformer_config()), variant);
        }
        assert_eq!(Variant::named("5b"), Some(Variant::FiveB));
        assert_eq!(Variant::named("THUDM/CogVideoX-2b@main"), Some(Variant::TwoB));
        assert_eq!(Variant::named("my-cogvideox-finetune"), None);
    }

    #[test]
    fn a_model_that_is_not_as_published_is_told() {
        let mut checkpoint = Checkpoint::published(Variant::FiveB);
        assert!(differences(&checkpoint).is_empty());
        let (transformer, vae) = (&mut checkpoint.transformer, &mut checkpoint.vae);
        Arc::get_mut(transformer).unwrap().config.num_layers = 2;
        Arc::get_mut(vae).unwrap().config.scaling_factor = 1.0;
        assert_eq!(differences(&checkpoint), ["transformer.num_layers", "vae.scaling_factor"]);
    }

    #[test]
    fn the_published_models_have_their_parameters() {
        let t5 = Checkpoint::published(Variant::TwoB).text_encoder.weights.manifest.parameters();
        assert_eq!(t5, 4_762_310_656);
        let counts = Variant::ALL.map(|variant| {
            Checkpoint::published(variant).transformer.weights.manifest.parameters()
        });
        let expected = [1_693_783_872, 5_570_283_072, 5_625_087_552, 5_570_676_352, 5_571_594_880];
        assert_eq!(counts, expected);
    }
}
