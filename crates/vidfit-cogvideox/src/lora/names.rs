//! The names of factors.

use super::LoraFormat;
use crate::weights::WeightSpec;
use std::collections::HashMap;

/// What a tensor is of a weight's two factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// `[rank, inputs]`.
    A,
    /// `[outputs, rank]`.
    B,
    /// What is divided by the rank.
    Alpha,
}

/// What a name says.
pub(super) enum Name<'m> {
    Known {
        format: LoraFormat,
        spec: &'m WeightSpec,
        half: Half,
    },
    /// For a model that is not adapted.
    OfTextEncoder,
    /// A magnitude of weight-decomposed adaptation (Liu et al. 2024), which the reference leaves out.
    Dora,
    Unknown,
}

/// How names of factors end.
const ENDINGS: [(&str, Half); 7] = [
    (".lora_A.weight", Half::A),
    (".lora_B.weight", Half::B),
    (".lora_down.weight", Half::A),
    (".lora_up.weight", Half::B),
    (".lora.down.weight", Half::A),
    (".lora.up.weight", Half::B),
    (".alpha", Half::Alpha),
];

/// How the names of layers begin, from the longest on.
const PREFIXES: [&str; 3] = ["base_model.model.", "transformer.", ""];

/// What the parts of SAT's attention are called in the checkpoint, by the number of the matrix.
const SAT_ATTENTION: [(&str, &[&str]); 2] = [
    ("query_key_value", &["attn1.to_q", "attn1.to_k", "attn1.to_v"]),
    ("dense", &["attn1.to_out.0"]),
];

/// The layers of a model by their names.
pub(super) struct Names<'m> {
    by_path: HashMap<&'m str, &'m WeightSpec>,
    /// With underscores for dots, as Kohya's trainers write them. Which of the underscores were
    /// dots cannot be told from the name, but looked up.
    by_flat_path: HashMap<String, &'m WeightSpec>,
}

/// The layer that a weight belongs to.
pub(super) fn module(spec: &WeightSpec) -> &str {
    spec.key.strip_suffix(".weight").unwrap_or(&spec.key)
}

impl<'m> Names<'m> {
    pub fn of(specs: impl Iterator<Item = &'m WeightSpec>) -> Names<'m> {
        let by_path: HashMap<_, _> = specs.map(|spec| (module(spec), spec)).collect();
        let flat = |(path, spec): (&&str, &&'m WeightSpec)| (path.replace('.', "_"), *spec);
        let by_flat_path = by_path.iter().map(flat).collect();
        Names { by_path, by_flat_path }
    }

    pub fn read(&self, name: &str) -> Name<'m> {
        if name.starts_with("lora_te") || name.starts_with("text_encoder.") {
            return Name::OfTextEncoder;
        }
        if name.ends_with(".dora_scale") {
            return Name::Dora;
        }
        let half =
            ENDINGS.iter().find_map(|(ending, half)| Some((name.strip_suffix(ending)?, *half)));
        let found = match half {
            Some((path, half)) => self.layer(path).map(|(format, spec)| (format, spec, half)),
            None => self.of_sat(name).map(|(spec, half)| (LoraFormat::Sat, spec, half)),
        };
        match found {
            Some((format, spec, half)) => Name::Known { format, spec, half },
            None => Name::Unknown,
        }
    }

    fn layer(&self, path: &str) -> Option<(LoraFormat, &'m WeightSpec)> {
        if let Some(flat) = path.strip_prefix("lora_unet_") {
            return self.by_flat_path.get(flat).map(|spec| (LoraFormat::Kohya, *spec));
        }
        let paths = PREFIXES.iter().filter_map(|prefix| path.strip_prefix(prefix));
        let spec = paths.filter_map(|path| self.by_path.get(path)).next();
        spec.map(|spec| (LoraFormat::Peft, *spec))
    }

    /// `[model.diffusion_model.]transformer.layers.N.attention.query_key_value.matrix_A.I`.
    fn of_sat(&self, name: &str) -> Option<(&'m WeightSpec, Half)> {
        let name = name.strip_prefix("model.diffusion_model.").unwrap_or(name);
        let name = name.strip_prefix("transformer.layers.")?;
        let (layer, name) = name.split_once(".attention.")?;
        let (part, name) = name.split_once(".matrix_")?;
        let (factor, number) = name.split_once('.')?;
        let half = match factor {
            "A" => Half::A,
            "B" => Half::B,
            _ => return None,
        };
        let (_, layers) = SAT_ATTENTION.iter().find(|(name, _)| *name == part)?;
        let path = layers.get(number.parse::<usize>().ok()?)?;
        let spec = self.by_path.get(format!("transformer_blocks.{layer}.{path}").as_str())?;
        Some((spec, half))
    }
}
