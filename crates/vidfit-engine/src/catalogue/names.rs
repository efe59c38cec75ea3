//! Finding a card by what people call it.

use super::{Gpu, all};

/// No single card has the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// Several cards share it.
    #[error("{name:?} is the name of {} cards: {}. Name one of them", variants.len(),
        variants.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The full names of the cards.
        variants: Vec<&'static str>,
    },
    /// No card has it.
    #[error(
        "no card named {name:?} is known.{} `vidfit gpus` lists those that are",
        did_you_mean(nearest)
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The full names of cards with similar names, the nearest first.
        nearest: Vec<&'static str>,
    },
}

fn did_you_mean(nearest: &[&str]) -> String {
    match nearest {
        [] => String::new(),
        names => format!(" Did you mean {}?", names.join(", or ")),
    }
}

/// The card of a name, as people write it or as its driver reports it. Case, spaces, hyphens and
/// words such as "NVIDIA" and "GeForce" do not matter; `RTX` or `GTX` may be left out, and the
/// memory may be added to any name. A full name finds its card even if others begin alike:
/// `RTX 4090` is the card of desktops.
pub fn find(name: &str) -> Result<&'static Gpu, CatalogueError> {
    let wanted = squashed(name);
    if let Some(gpu) = all().iter().find(|gpu| squashed(&gpu.name) == wanted) {
        return Ok(gpu);
    }
    match matching(name)[..] {
        [gpu] => Ok(gpu),
        [] => Err(CatalogueError::Unknown { name: name.to_owned(), nearest: nearest(&wanted) }),
        ref several => {
            let variants = several.iter().map(|gpu| &gpu.name[..]).collect();
            Err(CatalogueError::Ambiguous { name: name.to_owned(), variants })
        }
    }
}

/// The cards that a name may mean: those of the model, as far as what follows it fits them.
pub fn matching(name: &str) -> Vec<&'static Gpu> {
    let wanted = squashed(name);
    all().iter().filter(|gpu| fits(gpu, &wanted)).collect()
}

/// Whether a squashed name is this card's model, followed by any of the words of its variant.
fn fits(gpu: &Gpu, wanted: &str) -> bool {
    let model = squashed(&gpu.model);
    let short = model.strip_prefix("rtx").or_else(|| model.strip_prefix("gtx"));
    let rest = wanted.strip_prefix(&model[..]).or_else(|| wanted.strip_prefix(short?));
    let memory = format!("{}gb", gpu.memory_bytes >> 30);
    let mut words: Vec<String> = gpu.variant.split(' ').map(squashed).collect();
    words.retain(|word| !word.is_empty() && *word != memory);
    words.push(memory);
    words.extend(gpu.also.iter().map(|word| squashed(word)));
    let Some(mut rest) = rest else { return false };
    while !rest.is_empty() {
        let next = words.iter().position(|word| rest.starts_with(&word[..]));
        let Some(next) = next else { return false };
        rest = &rest[words.remove(next).len()..];
    }
    true
}

/// A name without what does not tell cards apart.
fn squashed(name: &str) -> String {
    let words = name.to_lowercase();
    let mut name: String = words.chars().filter(|c| c.is_alphanumeric()).collect();
    for word in ["nvidia", "geforce", "tesla", "gpu", "generation", "edition"] {
        name = name.replace(word, "");
    }
    // The socket's generation follows from the card's.
    name.replace("sxm4", "sxm").replace("sxm5", "sxm").replace("sxm6", "sxm")
}

/// The full names of up to three cards whose names are most like `wanted`, unless none is.
fn nearest(wanted: &str) -> Vec<&'static str> {
    let likeness = |gpu: &'static Gpu| {
        let (name, model) = (squashed(&gpu.name), squashed(&gpu.model));
        let like = match wanted.len() > 2 && model.contains(wanted) {
            true => 1.0,
            false => strsim::jaro_winkler(&name, wanted).max(strsim::jaro_winkler(&model, wanted)),
        };
        (like, &gpu.name[..])
    };
    let mut likenesses: Vec<_> = all().iter().map(likeness).filter(|like| like.0 > 0.8).collect();
    likenesses.sort_by(|a, b| b.0.total_cmp(&a.0));
    likenesses.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static str {
        &find(name).unwrap_or_else(|error| panic!("{error}")).name
    }

    #[test]
    fn spelling_does_not_matter() {
        for name in [
            "RTX 3060 12GB",
            "rtx3060-12gb",
            "NVIDIA GeForce RTX 3060 12 GB",
            "GeForce 3060 12GB",
            "3060 12gb",
        ] {
            assert_eq!(named(name), "RTX 3060 12GB", "{name}");
        }
        assert_eq!(named("NVIDIA GeForce RTX 3060 Laptop GPU"), "RTX 3060 Laptop");
        assert_eq!(named("RTX 3080 16GB Laptop"), "RTX 3080 Laptop 16GB");
        assert_eq!(named("nvidia a100 sxm 80gb"), "A100 80GB SXM");
        assert_eq!(named("NVIDIA L40S"), "L40S");
        assert_eq!(named("A4000"), "RTX A4000");
        assert_eq!(named("RTX 4090 24GB"), "RTX 4090");
        assert_eq!(named("RTX 4060 Ti 16GB"), "RTX 4060 Ti 16GB");
        assert_eq!(named("RTX 3080 8GB"), "RTX 3080 Laptop 8GB", "the only one with 8 GB");
    }

    #[test]
    fn drivers_are_understood() {
        for (reported, card) in [
            ("Tesla T4", "T4"),
            ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
            ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
            ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
            ("NVIDIA H100 80GB HBM3", "H100 SXM"),
            ("NVIDIA H100 PCIe", "H100 PCIe"),
            ("NVIDIA H200", "H200"),
            ("NVIDIA H200 NVL", "H200 NVL"),
            ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
            ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti SUPER"),
            ("NVIDIA TITAN RTX", "Titan RTX"),
            (
                "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
                "RTX PRO 6000 Blackwell Max-Q",
            ),
        ] {
            assert_eq!(named(reported), card, "{reported}");
        }
    }

    #[test]
    fn every_full_name_finds_its_card() {
        for gpu in all() {
            assert_eq!(named(&gpu.name), gpu.name);
            assert_eq!(named(&format!("NVIDIA GeForce {}", gpu.name.to_uppercase())), gpu.name);
        }
    }

    #[test]
    fn a_full_name_wins_over_longer_ones() {
        assert_eq!(named("RTX 4090"), "RTX 4090");
        assert_eq!(named("RTX 3070"), "RTX 3070");
        assert_eq!(named("RTX 3060 Ti"), "RTX 3060 Ti");
    }

    #[test]
    fn a_shared_name_is_an_error_that_lists_the_cards() {
        for (name, expected) in [
            ("RTX 3060", &["RTX 3060 12GB", "RTX 3060 8GB", "RTX 3060 Laptop"][..]),
            ("rtx 3080 laptop", &["RTX 3080 Laptop 8GB", "RTX 3080 Laptop 16GB"]),
            ("A100", &["A100 40GB", "A100 80GB PCIe", "A100 80GB SXM"]),
            ("4060 ti", &["RTX 4060 Ti 8GB", "RTX 4060 Ti 16GB"]),
        ] {
            let error = find(name).unwrap_err();
            let variants = expected.to_vec();
            assert_eq!(error, CatalogueError::Ambiguous { name: name.into(), variants });
            assert!(expected.iter().all(|card| error.to_string().contains(card)), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_suggests() {
        for (name, suggested) in [
            ("RTX 3065", "RTX 3060"),
            ("RTX 4900", "RTX 4090"),
            ("RTX 3060 24GB", "RTX 3060 12GB"),
            ("RTX 4000", "RTX 4000 Ada"),
            ("RTX 4000", "Quadro RTX 4000"),
            ("H10", "H100"),
        ] {
            let error = find(name).unwrap_err();
            assert!(matches!(error, CatalogueError::Unknown { .. }), "{error}");
            assert!(error.to_string().contains(suggested), "{error}");
            assert!(error.to_string().contains("vidfit gpus"), "{error}");
        }
        for nonsense in ["", "x", "toaster", "NVIDIA", "12GB", "(°_°)"] {
            let error = find(nonsense).unwrap_err();
            let nearest = vec![];
            assert_eq!(error, CatalogueError::Unknown { name: nonsense.into(), nearest });
        }
    }
}
