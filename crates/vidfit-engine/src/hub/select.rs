//! Which files of a repository a diffusers pipeline needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The file that makes a folder a pipeline and names its components.
pub(super) const MODEL_INDEX: &str = "model_index.json";

/// Types a component may come in besides its plain files, best first. Only one is taken, and only
/// if the plain files are missing.
const VARIANTS: [&str; 2] = ["fp16", "bf16"];

/// The components that a `model_index.json` names; `None` if it does not parse.
pub(super) fn components_of(model_index: &[u8]) -> Option<HashSet<String>> {
    let index: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(model_index).ok()?;
    let is_component = |value: &serde_json::Value| value.is_array();
    Some(index.into_iter().filter(|(_, v)| is_component(v)).map(|(name, _)| name).collect())
}

/// Chooses the files a pipeline needs: configuration, tokenizer and safetensors weights of each
/// component, each in one type. A repository without `model_index.json` (a LoRA, say) gives its
/// safetensors files and their configuration.
///
/// Not chosen: weights in other formats (`.bin`, `.ckpt`, `.onnx`, ...), pictures, texts, and
/// folders that the pipeline does not name in `components`.
pub(super) fn select<'a>(
    names: impl IntoIterator<Item = &'a str>,
    components: Option<&HashSet<String>>,
) -> BTreeSet<String> {
    let names: Vec<&str> = names.into_iter().collect();
    let is_pipeline = names.contains(&MODEL_INDEX);
    let mut chosen = BTreeSet::new();
    let mut weights: BTreeMap<(&str, String), Vec<Weights<'_>>> = BTreeMap::new();
    for name in names {
        let (folder, file) = match name.split_once('/') {
            Some((folder, file)) => (folder, file),
            None => ("", name),
        };
        let is_component = components.is_none_or(|components| components.contains(folder));
        let wanted_folder = if folder.is_empty() { !is_pipeline } else { is_component };
        if name == MODEL_INDEX {
            chosen.insert(name.to_owned());
        } else if file.contains('/') || !wanted_folder {
            continue;
        } else if let Some(found) = Weights::of(name, file) {
            weights.entry((folder, found.stem.clone())).or_default().push(found);
        } else if is_configuration(folder, file) {
            chosen.insert(name.to_owned());
        }
    }
    for files in weights.into_values() {
        let has = |variant: Option<&str>| {
            files.iter().any(|file| !file.is_index && file.variant.as_deref() == variant)
        };
        let best = [None].into_iter().chain(VARIANTS.map(Some)).find(|&variant| has(variant));
        if let Some(best) = best {
            let of_best = files.iter().filter(|file| file.variant.as_deref() == best);
            chosen.extend(of_best.map(|file| file.name.to_owned()));
        }
    }
    chosen
}

/// A safetensors file or an index of some.
struct Weights<'a> {
    name: &'a str,
    stem: String,
    variant: Option<String>,
    is_index: bool,
}

impl<'a> Weights<'a> {
    fn of(name: &'a str, file: &str) -> Option<Self> {
        if let Some(body) = file.strip_suffix(".safetensors") {
            let (stem, variant) = split_variant(without_shard_number(body));
            return Some(Self { name, stem, variant, is_index: false });
        }
        let (body, rest) = file.strip_suffix(".json")?.split_once(".safetensors.index")?;
        let (stem, variant) = split_variant(body);
        let variant = rest.strip_prefix('.').map(str::to_owned).or(variant);
        Some(Self { name, stem, variant, is_index: true })
    }
}

/// `model-00001-of-00002` is a part of `model`.
fn without_shard_number(body: &str) -> &str {
    let mut parts = body.rsplitn(4, '-');
    let (total, of, number, stem) = (parts.next(), parts.next(), parts.next(), parts.next());
    let is_number = |part: Option<&str>| {
        part.is_some_and(|part| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit()))
    };
    match stem {
        Some(stem) if of == Some("of") && is_number(total) && is_number(number) => stem,
        _ => body,
    }
}

fn split_variant(body: &str) -> (String, Option<String>) {
    match body.rsplit_once('.') {
        Some((stem, variant)) => (stem.to_owned(), Some(variant.to_owned())),
        None => (body.to_owned(), None),
    }
}

fn is_configuration(folder: &str, file: &str) -> bool {
    let is_tokenizer = folder.starts_with("tokenizer");
    match file.rsplit_once('.') {
        // Indices of weights in other formats are of no use without those.
        Some((stem, "json")) => !stem.contains(".index"),
        Some((_, "txt" | "model")) => is_tokenizer,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], components: Option<&[&str]>) -> Vec<String> {
        let components = components.map(|c| c.iter().map(|&name| name.to_owned()).collect());
        select(names.iter().copied(), components.as_ref()).into_iter().collect()
    }

    #[test]
    fn a_pipeline() {
        let wanted = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "text_encoder/model.safetensors.index.json",
            "tokenizer/added_tokens.json",
            "tokenizer/spiece.model",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        let unwanted = [
            ".gitattributes",
            "LICENSE",
            "README.md",
            "configuration.json",
            "cogvideox.ckpt",
            "cogvideox.safetensors",
            "assets/video.mp4",
            "onnx/model.json",
            "text_encoder/pytorch_model.bin",
            "text_encoder/pytorch_model.bin.index.json",
            "text_encoder/model.fp16-00001-of-00002.safetensors",
            "text_encoder/model.safetensors.index.fp16.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.bin",
            "vae/model.onnx",
            "vae/old/diffusion_pytorch_model.safetensors",
            "vae/preview.png",
        ];
        let components = ["scheduler", "text_encoder", "tokenizer", "transformer", "vae"];
        let all: Vec<&str> = unwanted.iter().chain(&wanted).copied().collect();
        assert_eq!(chosen(&all, Some(&components)), wanted);
    }

    #[test]
    fn a_variant_only_where_the_plain_file_is_missing() {
        let names = [
            "model_index.json",
            "vae/diffusion_pytorch_model.bf16.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "text_encoder/model.fp16-00001-of-00001.safetensors",
            "text_encoder/model.safetensors.index.fp16.json",
        ];
        let expected = [names[0], names[3], names[4], names[2]];
        assert_eq!(chosen(&names, None), expected);
    }

    #[test]
    fn a_lora() {
        let names = ["README.md", "pytorch_lora_weights.safetensors", "x.png"];
        assert_eq!(chosen(&names, None), [names[1]]);
        assert!(chosen(&["README.md", "pytorch_model.bin"], None).is_empty());
    }

    #[test]
    fn components() {
        let index = br#"{"_class_name": "P", "vae": ["diffusers", "V"], "x": [null, null]}"#;
        assert!(components_of(index).unwrap().contains("vae"));
        assert!(!components_of(index).unwrap().contains("_class_name"));
        assert_eq!(components_of(b"["), None);
    }
}
