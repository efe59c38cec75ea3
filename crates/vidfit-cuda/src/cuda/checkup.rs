//! What there is of NVIDIA's on this machine, and what is missing.

use super::library::{self, Card};
use super::nvml;
use std::path::PathBuf;

/// What was found.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// Where the driver's library lies, if the system tells; or why it cannot be loaded.
    pub library: Result<Option<PathBuf>, String>,
    /// The CUDA that the driver is for.
    pub cuda: Option<(u32, u32)>,
    /// The cards, each with why it cannot be used, if it cannot.
    pub cards: Vec<(Card, Option<String>)>,
    /// What is in the way of using any card, in words.
    pub missing: Vec<String>,
}

/// Looks what there is. No card is touched.
pub fn check_up() -> Checkup {
    let mut found = Checkup {
        library: library::load().map(|()| library::path_of("libcuda.so")),
        cuda: None,
        cards: Vec::new(),
        missing: Vec::new(),
    };
    match look(&mut found) {
        Ok(()) if found.cards.is_empty() => found.missing.push("the driver sees no card".into()),
        Ok(()) => {}
        Err(what) => found.missing.push(what),
    }
    found
}

fn look(found: &mut Checkup) -> Result<(), String> {
    if let Err(why) = &found.library {
        return Err(why.clone());
    }
    let version = library::version()?;
    found.cuda = Some(version);
    found.missing.extend(library::problem_of(version));
    for index in 0..library::count()? {
        // One that fails keeps nobody from the others.
        let described = library::card(index).map(|(_, card)| card);
        found.cards.push(match described {
            Ok(card) => {
                let problem = card.problem();
                (card, problem)
            }
            Err(what) => (Card::unknown(index), Some(what)),
        });
    }
    Ok(())
}

/// Bytes that are free on a card which nothing of this process is on yet, if NVML tells.
pub fn free_bytes(card: &Card) -> Option<u64> {
    library::load().ok()?;
    let (device, _) = library::card(card.index).ok()?;
    nvml::free_bytes(device)
}
