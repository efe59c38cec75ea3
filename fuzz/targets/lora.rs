//! Names and shapes of LoRAs: each list of them is refused, or adds factors of the right shapes to
//! weights that the model has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use vidfit_cogvideox::lora::{Listing, adapt};
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::weights::Manifest;
use vidfit_engine::checkpoint::{Checkpoint, Variant};

/// The transformers that the names are held against.
static MANIFESTS: LazyLock<Vec<Manifest>> = LazyLock::new(|| {
    let manifest = |variant| {
        let published = Checkpoint::published(variant).transformer.config.clone();
        // Two blocks are as good as forty.
        TransformerConfig { num_layers: 2, ..published }.manifest()
    };
    [Variant::TwoB, Variant::FiveB, Variant::OneFiveI2v].map(manifest).into()
});

fuzz_target!(|text: &str| {
    // The first line is metadata, if it is any; the others are a name and lengths each.
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut tensors: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        tensors.insert(name, words.filter_map(|word| word.parse().ok()).collect());
    }
    let scalar = |name: &str| name.len().checked_sub(40).map(|long| long as f64);
    let listing = Listing {
        tensors: tensors.iter().map(|(name, shape)| (*name, &shape[..])).collect(),
        metadata: first.starts_with('{').then_some(first),
        scalar: &scalar,
    };
    for manifest in MANIFESTS.iter() {
        for is_lenient in [false, true] {
            let Ok(adaptation) = adapt(manifest, &listing, is_lenient) else { continue };
            for update in &adaptation.updates {
                let spec = manifest.weights().find(|spec| spec.key == update.key);
                let spec = spec.expect("a weight of the model");
                assert_eq!(tensors[update.a.as_str()][0], update.rank);
                assert_eq!(tensors[update.b.as_str()][1], update.rank);
                let outputs = tensors[update.b.as_str()][0];
                assert_eq!(outputs, spec.stored[0]);
                let inputs: usize = spec.stored[1..].iter().product();
                assert_eq!(tensors[update.a.as_str()][1], inputs);
                assert!(update.factor.is_finite());
            }
        }
    }
});
