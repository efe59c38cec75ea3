//! Rates of devices that nobody has measured, from what their makers say.

use super::{CopyCost, Cost, PerType, Rates};

/// What programs reach of what makers say, on cards. Assumptions, each from common experience with
/// the vendor's libraries at sizes like these models'; a measured card replaces them.
mod reached {
    /// Of the dense tensor rate, in products of some thousand rows: power limits and the edges of
    /// tiles take the rest.
    pub const PRODUCT: f64 = 0.55;
    /// Of the dense tensor rate, in attention with heads of 64: the softmax takes its time, which
    /// short heads amortise little (FlashAttention-2, Dao 2023, reports 35 to 60 %).
    pub const ATTENTION: f64 = 0.40;
    /// Of the dense tensor rate, in convolutions as products with gathered operands.
    pub const CONVOLUTION: f64 = 0.375;
    /// Of the rate left to a convolution, to so few channels that most columns of a tile are empty.
    pub const THIN_CONVOLUTION: f64 = 0.05;
    /// Of the f32 rate, in products without tensor units.
    pub const F32: f64 = 0.70;
    /// Of memory's bandwidth, in streams.
    pub const MEMORY: f64 = 0.72;
    /// Of the bus's bandwidth, from pinned memory: packet headers take the rest.
    pub const BUS: f64 = 0.80;
    /// Of the bus's bandwidth, from memory that has to be staged first.
    pub const STAGED: f64 = 0.40;
    /// Seconds from one small kernel to the next.
    pub const LAUNCH: f64 = 5e-6;
    /// Seconds until a copy begins, and until somebody knows of its end.
    pub const COPY: f64 = 15e-6;
}

impl Rates {
    /// A card as its maker describes it: the dense rate of its tensor units in 16 bits with f32
    /// sums, the f32 rate of its other units, bandwidth of its memory, and bandwidth of its bus in
    /// one direction. For plans; the shares that programs reach of these are assumptions.
    pub fn of_card(
        tensor_flops_per_second: f64,
        f32_flops_per_second: f64,
        memory_bytes_per_second: f64,
        bus_bytes_per_second: f64,
    ) -> Rates {
        let memory = (reached::MEMORY * memory_bytes_per_second).recip();
        let at = |flops_per_second: f64| Cost {
            seconds_per_call: reached::LAUNCH,
            seconds_per_flop: flops_per_second.recip(),
            seconds_per_weight_byte: memory,
            seconds_per_byte: memory,
            seconds_per_function: 0.0,
        };
        let product = |tensor_share: f64, further: f64| {
            let half = at(tensor_share * further * tensor_flops_per_second);
            let whole = at(reached::F32 * further * f32_flops_per_second);
            PerType { f32: whole, bf16: half, f16: half }
        };
        let stream = PerType::all(Cost { seconds_per_flop: 0.0, ..at(1.0) });
        let staged = PerType::all(Cost {
            seconds_per_call: reached::COPY,
            seconds_per_byte: (reached::STAGED * bus_bytes_per_second).recip(),
            ..Cost::default()
        });
        let queue = CopyCost::at(reached::BUS * bus_bytes_per_second, reached::COPY);
        Rates {
            linear: product(reached::PRODUCT, 1.0),
            attention: product(reached::ATTENTION, 1.0),
            convolution: product(reached::CONVOLUTION, 1.0),
            thin_convolution: product(reached::CONVOLUTION, reached::THIN_CONVOLUTION),
            norm: stream,
            statistics: stream,
            group_norm: stream,
            elementwise: stream,
            upload: staged,
            download: staged,
            upload_queue: queue,
            download_queue: queue,
            hides_traffic: true,
            copies_at_once: false,
        }
    }

    /// A processor of which nothing is known but how many threads compute: a guess, which may well
    /// be wrong by a factor of three. It takes 60 GFLOP/s a thread (eight lanes of fused
    /// multiply-adds, two a cycle, at 3 GHz, reach 96 at best) and 20 GB/s for all.
    pub fn of_processor(threads: usize) -> Rates {
        let flops_per_second = 60e9 * threads.max(1) as f64;
        let bytes_per_second = 20e9;
        let product = PerType::all(Cost {
            seconds_per_call: 1e-5,
            seconds_per_flop: flops_per_second.recip(),
            seconds_per_weight_byte: f64::recip(bytes_per_second),
            seconds_per_byte: f64::recip(bytes_per_second),
            seconds_per_function: 0.0,
        });
        let stream = PerType::all(Cost { seconds_per_flop: 0.0, ..product.f32 });
        let queue = CopyCost::at(bytes_per_second / 2.0, 1e-5);
        let mut thin = product;
        for cost in [&mut thin.f32, &mut thin.bf16, &mut thin.f16] {
            cost.seconds_per_flop *= 3.0;
        }
        Rates {
            linear: product,
            attention: product,
            convolution: product,
            thin_convolution: thin,
            norm: stream,
            statistics: stream,
            group_norm: stream,
            elementwise: stream,
            upload: stream,
            download: stream,
            upload_queue: queue,
            download_queue: queue,
            hides_traffic: false,
            copies_at_once: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rates::{Class, Operation, Work};
    use crate::{DType, Rates};

    const CARD: Maker = Maker { tensor: 100e12, f32: 25e12, memory: 500e9, bus: 25e9 };

    struct Maker {
        tensor: f64,
        f32: f64,
        memory: f64,
        bus: f64,
    }

    fn card() -> Rates {
        Rates::of_card(CARD.tensor, CARD.f32, CARD.memory, CARD.bus)
    }

    fn linear(rows: u64, dtype: DType) -> Operation {
        let weights = 4096 * 4096;
        let work = Work {
            flops: 2.0 * (rows * weights) as f64,
            weight_bytes: weights * dtype.bytes(),
            bytes: 2 * rows * 4096 * dtype.bytes(),
            functions: 0,
        };
        Operation { class: Class::Linear, dtype, work }
    }

    #[test]
    fn few_rows_are_bound_by_memory_and_many_by_arithmetic() {
        let weights = 4096.0 * 4096.0;
        let few = card().seconds(&linear(1, DType::BF16));
        let reading = 2.0 * weights / (0.72 * CARD.memory);
        assert!((few / reading - 1.0).abs() < 0.12, "{few} {reading}");
        let many = card().seconds(&linear(16384, DType::BF16));
        let computing = 2.0 * 16384.0 * weights / (0.55 * CARD.tensor);
        assert!((many / computing - 1.0).abs() < 0.01, "{many} {computing}");
    }

    #[test]
    fn single_precision_does_without_tensor_units() {
        let ratio =
            card().seconds(&linear(16384, DType::F32)) / card().seconds(&linear(16384, DType::F16));
        assert!((ratio - 4.0 * 0.55 / 0.70).abs() < 0.05, "{ratio}");
    }

    #[test]
    fn copies_keep_to_the_bus() {
        let seconds = card().upload_queue.seconds(1 << 30);
        let expected = f64::from(1 << 30) / (0.8 * CARD.bus);
        assert!((seconds / expected - 1.0).abs() < 0.01, "{seconds}");
    }

    #[test]
    fn what_is_published_is_possible() {
        assert!(card().is_possible() && Rates::of_processor(8).is_possible());
        assert!(!Rates::of_card(0.0, 1.0, 1.0, 1.0).is_possible(), "a rate of 0 takes for ever");
    }
}
