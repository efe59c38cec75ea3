//! The published checkpoints as sparse files of full size, from the reference's manifests.

use super::fixtures;
use super::sparse::write_zeros;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use vidfit_engine::safetensors::StoredDtype;

/// Every published variant, by the name of its manifest.
pub const VARIANTS: [&str; 5] = ["2b", "5b", "5b-i2v", "1.5", "1.5-i2v"];

/// Tensors as the reference lists them; `{}` in a name stands for 0..count.
#[derive(Clone, Deserialize)]
struct Listed {
    name: String,
    shape: Vec<usize>,
    count: Option<usize>,
}

#[derive(Deserialize)]
struct ModelFile {
    dtype: String,
    parameters: u64,
    tensors: usize,
    shards: usize,
    configs: BTreeMap<String, serde_json::Value>,
    transformer: Vec<Listed>,
}

#[derive(Deserialize)]
struct SharedFile {
    parameters: u64,
    tensors: usize,
    shards: usize,
    config: Option<serde_json::Value>,
    #[serde(alias = "vae", alias = "text_encoder")]
    listed: Vec<Listed>,
}

/// A stored tensor: name, type, shape.
pub type Stored = (String, StoredDtype, Vec<usize>);

/// One component with weights, as it is written.
#[derive(Clone)]
pub struct PublishedComponent {
    pub folder: &'static str,
    pub stem: &'static str,
    pub parameters: u64,
    pub shards: usize,
    pub config: serde_json::Value,
    pub tensors: Vec<Stored>,
}

/// A published checkpoint.
pub struct Published {
    pub dtype: StoredDtype,
    pub model_index: serde_json::Value,
    pub scheduler: serde_json::Value,
    pub transformer: PublishedComponent,
    pub vae: PublishedComponent,
    pub text_encoder: PublishedComponent,
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = fixtures().join(format!("published/{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn expand(listed: &[Listed], dtype: StoredDtype, tensors: usize) -> Vec<Stored> {
    let names = listed.iter().flat_map(|entry| {
        let names: Vec<String> = match entry.count {
            None => vec![entry.name.clone()],
            Some(count) => {
                (0..count).map(|n| entry.name.replacen("{}", &n.to_string(), 1)).collect()
            }
        };
        names.into_iter().map(|name| (name, dtype, entry.shape.clone()))
    });
    let all: Vec<Stored> = names.collect();
    assert_eq!(all.len(), tensors, "the manifest contradicts itself");
    all
}

impl Published {
    /// The checkpoint of a variant.
    pub fn read(variant: &str) -> Published {
        let mut model: ModelFile = read(variant);
        let (vae, t5): (SharedFile, SharedFile) = (read("vae"), read("t5"));
        let dtype = StoredDtype::from_name(&model.dtype).unwrap();
        let mut config = |name: &str| model.configs.remove(name).unwrap();
        Published {
            dtype,
            model_index: config("model_index"),
            scheduler: config("scheduler"),
            vae: PublishedComponent {
                folder: "vae",
                stem: "diffusion_pytorch_model",
                parameters: vae.parameters,
                shards: vae.shards,
                config: config("vae"),
                tensors: expand(&vae.listed, dtype, vae.tensors),
            },
            transformer: PublishedComponent {
                folder: "transformer",
                stem: "diffusion_pytorch_model",
                parameters: model.parameters,
                shards: model.shards,
                config: config("transformer"),
                tensors: expand(&model.transformer, dtype, model.tensors),
            },
            text_encoder: PublishedComponent {
                folder: "text_encoder",
                stem: "model",
                parameters: t5.parameters,
                shards: t5.shards,
                config: t5.config.unwrap(),
                tensors: expand(&t5.listed, dtype, t5.tensors),
            },
        }
    }

    /// The components with weights.
    pub fn components(&self) -> [&PublishedComponent; 3] {
        [&self.text_encoder, &self.transformer, &self.vae]
    }

    /// Writes the checkpoint into `dir`. The tokenizer is that of the tiny checkpoints.
    pub fn write(&self, dir: &Path) {
        fs::create_dir_all(dir.join("scheduler")).unwrap();
        fs::create_dir_all(dir.join("tokenizer")).unwrap();
        write_json(&dir.join("model_index.json"), &self.model_index);
        write_json(&dir.join("scheduler/scheduler_config.json"), &self.scheduler);
        let tokenizer = fixtures().join("checkpoints/5b/tokenizer/spiece.model");
        fs::copy(tokenizer, dir.join("tokenizer/spiece.model")).unwrap();
        self.components().iter().for_each(|component| component.write(dir));
    }
}

impl PublishedComponent {
    /// The file names of the shards.
    pub fn files(&self) -> Vec<String> {
        let (stem, count) = (self.stem, self.shards);
        match count {
            1 => vec![format!("{stem}.safetensors")],
            _ => (1..=count).map(|n| format!("{stem}-{n:05}-of-{count:05}.safetensors")).collect(),
        }
    }

    /// Writes the component into the checkpoint `dir`, in place of what was there.
    pub fn write(&self, dir: &Path) {
        let folder = dir.join(self.folder);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        write_json(&folder.join("config.json"), &self.config);
        let files = self.files();
        let per_shard = self.tensors.len().div_ceil(files.len());
        let mut map = BTreeMap::new();
        for (file, tensors) in files.iter().zip(self.tensors.chunks(per_shard)) {
            write_zeros(&folder.join(file), tensors);
            map.extend(tensors.iter().map(|(name, ..)| (name.clone(), file.clone())));
        }
        if files.len() > 1 {
            let index = serde_json::json!({ "metadata": {}, "weight_map": map });
            write_json(&folder.join(format!("{}.safetensors.index.json", self.stem)), &index);
        }
    }

    /// The same component with its tensors changed.
    pub fn with(&self, change: impl FnOnce(&mut Vec<Stored>)) -> PublishedComponent {
        let mut changed = self.clone();
        change(&mut changed.tensors);
        changed
    }
}

pub fn write_json(path: &Path, value: &serde_json::Value) {
    fs::write(path, value.to_string()).unwrap();
}
