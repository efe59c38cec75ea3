//! Which weights stay on the device, and which are streamed.

use vidfit_cogvideox::weights::{BlockSpec, Form, WeightSpec};

/// The weights of one block, by where they are.
#[derive(Clone, Debug, Default)]
pub struct Split<'w> {
    /// Read in the memory map.
    pub in_place: Vec<&'w WeightSpec>,
    /// On the device throughout.
    pub resident: Vec<&'w WeightSpec>,
    /// Brought for each use.
    pub streamed: Vec<&'w WeightSpec>,
}

/// How the weights of a phase are shared out, block by block.
pub struct Share<'w> {
    /// In the order of the blocks.
    pub splits: Vec<Split<'w>>,
    /// Bytes on the device throughout.
    pub resident_bytes: u64,
    /// Bytes brought in each pass.
    pub streamed_bytes: u64,
}

/// One more weight that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Bytes on the device throughout.
    pub resident_bytes: u64,
    /// Bytes brought in each pass.
    pub streamed_bytes: u64,
    /// The most bytes that a block brings: what a slot holds.
    pub slot_bytes: u64,
}

impl<'w> Share<'w> {
    /// Lets weights of `blocks` stay as long as `allowance` bytes last.
    ///
    /// Every block keeps about the same share of its bytes, so that each takes as long to bring as
    /// the next, and slots shrink as the share grows: weights are taken largest first, the largest
    /// of every block before the second largest of any. Within a rank, blocks that lie far apart
    /// come first. The choice grows with the allowance: what stays within fewer bytes, stays.
    pub fn new(
        blocks: &[&'w BlockSpec],
        bytes: &dyn Fn(&WeightSpec) -> u64,
        is_in_place: &dyn Fn(&WeightSpec) -> bool,
        allowance: u64,
    ) -> Share<'w> {
        let (mut splits, candidates) = candidates(blocks, bytes, is_in_place);
        let (mut resident_bytes, mut streamed_bytes) = (0, 0);
        let mut is_full = false;
        for (index, weight) in candidates {
            // Once one does not fit, none after it stays: else the choice would not grow evenly.
            is_full |= bytes(weight) > allowance - resident_bytes;
            if is_full {
                streamed_bytes += bytes(weight);
                splits[index].streamed.push(weight);
            } else {
                resident_bytes += bytes(weight);
                splits[index].resident.push(weight);
            }
        }
        Share { splits, resident_bytes, streamed_bytes }
    }

    /// What every allowance that makes a difference comes to, from none to all.
    pub fn ladder(
        blocks: &[&'w BlockSpec],
        bytes: &dyn Fn(&WeightSpec) -> u64,
        is_in_place: &dyn Fn(&WeightSpec) -> bool,
    ) -> Vec<Rung> {
        let (_, candidates) = candidates(blocks, bytes, is_in_place);
        let mut streamed: Vec<u64> = vec![0; blocks.len()];
        candidates.iter().for_each(|&(index, weight)| streamed[index] += bytes(weight));
        let mut streamed_bytes: u64 = streamed.iter().sum();
        let mut resident_bytes = 0;
        let mut ladder = vec![Rung {
            resident_bytes,
            streamed_bytes,
            slot_bytes: streamed.iter().copied().max().unwrap_or(0),
        }];
        for (index, weight) in candidates {
            streamed[index] -= bytes(weight);
            streamed_bytes -= bytes(weight);
            resident_bytes += bytes(weight);
            let slot_bytes = streamed.iter().copied().max().unwrap_or(0);
            ladder.push(Rung { resident_bytes, streamed_bytes, slot_bytes });
        }
        ladder
    }
}

/// For each block what is read in place; and the weights that are brought, with the numbers of their
/// blocks, in the order in which they come to stay.
fn candidates<'w>(
    blocks: &[&'w BlockSpec],
    bytes: &dyn Fn(&WeightSpec) -> u64,
    is_in_place: &dyn Fn(&WeightSpec) -> bool,
) -> (Vec<Split<'w>>, Vec<(usize, &'w WeightSpec)>) {
    let (mut splits, mut candidates) = (Vec::new(), Vec::new());
    for (index, block) in blocks.iter().enumerate() {
        let used = block.weights.iter().filter(|weight| weight.form != Form::HostRows);
        let (in_place, mut brought): (Vec<_>, Vec<_>) = used.partition(|w| is_in_place(w));
        brought.sort_by_key(|weight| std::cmp::Reverse(bytes(weight)));
        candidates.extend(brought.into_iter().enumerate().map(|(rank, w)| (rank, index, w)));
        splits.push(Split { in_place, ..Split::default() });
    }
    candidates.sort_by_key(|&(rank, index, _)| (rank, apart(index, blocks.len())));
    (splits, candidates.into_iter().map(|(_, index, weight)| (index, weight)).collect())
}

/// Where `index` of `count` stands in an order that jumps as far as it can: 0, 1/2, 1/4, 3/4, …
/// (the van der Corput sequence).
fn apart(index: usize, count: usize) -> u64 {
    let position = (index as u64) << 32;
    (position / count.max(1) as u64).reverse_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vidfit_cogvideox::weights::Manifest;
    use vidfit_tensor::Shape;

    fn manifest() -> Manifest {
        let weight = |key: String, elements: usize| WeightSpec {
            key,
            stored: vec![elements],
            form: Form::AsStored,
            shape: Shape::from([elements]),
            keep_f32: false,
        };
        let block = |n: usize| BlockSpec {
            name: format!("b{n}"),
            prefix: String::new(),
            weights: vec![weight(format!("b{n}.small"), 10), weight(format!("b{n}.large"), 100)],
        };
        Manifest { blocks: (0..8).map(block).collect() }
    }

    /// The most bytes that a block brings.
    fn largest_streamed(share: &Share<'_>) -> u64 {
        let of = |split: &Split<'_>| split.streamed.iter().map(|w| w.stored[0] as u64).sum();
        share.splits.iter().map(of).max().unwrap()
    }

    fn share(manifest: &Manifest, allowance: u64) -> Share<'_> {
        let blocks: Vec<&BlockSpec> = manifest.blocks.iter().collect();
        Share::new(&blocks, &|w| w.stored[0] as u64, &|_| false, allowance)
    }

    #[test]
    fn blocks_far_apart_keep_their_largest_first() {
        let manifest = manifest();
        let of = |allowance| {
            let share = share(&manifest, allowance);
            let kept =
                |(index, split): (usize, &Split<'_>)| (!split.resident.is_empty()).then_some(index);
            share.splits.iter().enumerate().filter_map(kept).collect::<Vec<_>>()
        };
        assert!(of(99).is_empty());
        assert_eq!(of(100), [0]);
        assert_eq!(of(200), [0, 4]);
        assert_eq!(of(400), [0, 2, 4, 6]);
    }

    #[test]
    fn the_choice_grows_with_the_allowance_and_uses_it() {
        let manifest = manifest();
        let mut before = 0;
        for allowance in 0..=900 {
            let share = share(&manifest, allowance);
            assert!(share.resident_bytes <= allowance && share.resident_bytes >= before);
            assert!(allowance - share.resident_bytes < 100 || allowance >= 880);
            assert_eq!(share.resident_bytes + share.streamed_bytes, 880);
            before = share.resident_bytes;
        }
        assert_eq!(before, 880);
        let blocks: Vec<&BlockSpec> = manifest.blocks.iter().collect();
        let bytes = |w: &WeightSpec| w.stored[0] as u64;
        for rung in Share::ladder(&blocks, &bytes, &|_| false) {
            let share = share(&manifest, rung.resident_bytes);
            assert_eq!(share.resident_bytes, rung.resident_bytes);
            assert_eq!(share.streamed_bytes, rung.streamed_bytes);
            assert_eq!(largest_streamed(&share), rung.slot_bytes);
        }
        assert_eq!(largest_streamed(&share(&manifest, 800)), 10);
    }
}
