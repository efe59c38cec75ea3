//! The formula's numbers, from measured times.

use vidfit_tensor::rates::{Cost, Work};

/// An operation and the time that it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub work: Work,
    pub seconds: f64,
}

/// Terms of the formula.
const TERMS: usize = 5;

type Vector = [f64; TERMS];

fn terms(work: &Work) -> Vector {
    let Work { flops, weight_bytes, bytes, functions } = *work;
    [1.0, flops, weight_bytes as f64, bytes as f64, functions as f64]
}

/// The costs that fit best: those with the least sum of squared relative errors among all that are
/// not negative. A negative least-squares solution would predict well what was measured and
/// nonsense beyond it.
pub(super) fn fit(samples: &[Sample]) -> Cost {
    // Relative errors: each equation is divided by its time.
    let rows: Vec<Vector> = samples
        .iter()
        .map(|sample| terms(&sample.work).map(|term| term / sample.seconds))
        .collect();
    // All subsets of five terms are 31 small systems; the best that has no negative part is it.
    let solutions = (1u32..1 << TERMS).filter_map(|subset| {
        let active: Vec<usize> = (0..TERMS).filter(|term| subset >> term & 1 == 1).collect();
        let solution = least_squares(&rows, &active)?;
        solution.iter().all(|part| *part >= 0.0).then_some(solution)
    });
    let error = |solution: &Vector| -> f64 {
        rows.iter().map(|row| (dot(row, solution) - 1.0).powi(2)).sum()
    };
    let best = solutions.min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or_default();
    let [call, flop, weight_byte, byte, function] = best;
    Cost {
        seconds_per_call: call,
        seconds_per_flop: flop,
        seconds_per_weight_byte: weight_byte,
        seconds_per_byte: byte,
        seconds_per_function: function,
    }
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves `row · x = 1` for all rows in the least squares, with only the `active` terms: the normal
/// equations, by elimination. `None` where these terms cannot be told apart.
fn least_squares(rows: &[Vector], active: &[usize]) -> Option<Vector> {
    let size = active.len();
    // Terms differ by twelve orders of magnitude: each is brought to length 1.
    let mut scale = Vec::new();
    for &term in active {
        let length = rows.iter().map(|row| row[term] * row[term]).sum::<f64>().sqrt();
        if length == 0.0 {
            return None;
        }
        scale.push(length.recip());
    }
    let column = |row: &Vector, i: usize| row[active[i]] * scale[i];
    let mut system: Vec<Vec<f64>> = (0..size)
        .map(|i| {
            let mut equation: Vec<f64> = (0..size)
                .map(|j| rows.iter().map(|row| column(row, i) * column(row, j)).sum())
                .collect();
            equation.push(rows.iter().map(|row| column(row, i)).sum());
            equation
        })
        .collect();
    for pivot in 0..size {
        let largest = (pivot..size)
            .max_by(|&a, &b| system[a][pivot].abs().total_cmp(&system[b][pivot].abs()))?;
        system.swap(pivot, largest);
        if system[pivot][pivot].abs() < 1e-9 {
            return None;
        }
        let leading = system[pivot].clone();
        for (i, equation) in system.iter_mut().enumerate() {
            if i != pivot {
                let factor = equation[pivot] / leading[pivot];
                equation.iter_mut().zip(&leading).for_each(|(value, lead)| *value -= factor * lead);
            }
        }
    }
    let mut solution = [0.0; TERMS];
    for i in 0..size {
        solution[active[i]] = system[i][size] / system[i][i] * scale[i];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost {
        seconds_per_call: 2e-5,
        seconds_per_flop: 5e-12,
        seconds_per_weight_byte: 1e-10,
        seconds_per_byte: 4e-11,
        seconds_per_function: 3e-10,
    };

    fn samples(cost: Cost) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (rows, depth, columns, functions) in [
            (1, 4096, 4096, 0),
            (8, 16, 16, 0),
            (226, 4096, 1024, 0),
            (226, 1024, 4096, 1),
            (20_000, 16, 256, 1),
            (2048, 1920, 1920, 0),
        ] {
            let work = Work {
                flops: 2.0 * (rows * depth * columns) as f64,
                weight_bytes: 4 * depth * columns,
                bytes: 4 * rows * (depth + columns),
                functions: functions * rows * columns,
            };
            samples.push(Sample { work, seconds: cost.seconds(&work, false) });
        }
        samples
    }

    fn assert_near(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-4 * b.abs(), "{a} is not {b}");
    }

    #[test]
    fn costs_are_found_in_what_they_make() {
        let found = fit(&samples(COST));
        assert_near(found.seconds_per_call, COST.seconds_per_call);
        assert_near(found.seconds_per_flop, COST.seconds_per_flop);
        assert_near(found.seconds_per_weight_byte, COST.seconds_per_weight_byte);
        assert_near(found.seconds_per_byte, COST.seconds_per_byte);
        assert_near(found.seconds_per_function, COST.seconds_per_function);
    }

    #[test]
    fn no_cost_is_negative() {
        // A weight that makes products faster: nothing that the formula can say.
        let mut samples = samples(COST);
        for sample in &mut samples {
            sample.seconds -= 1.5e-10 * sample.work.weight_bytes as f64;
        }
        samples.retain(|sample| sample.seconds > 0.0);
        assert!(samples.len() >= 5);
        let found = fit(&samples);
        assert_eq!(found.seconds_per_weight_byte, 0.0);
        assert!(found.seconds_per_flop > 0.0);
        assert!(found.seconds_per_call >= 0.0 && found.seconds_per_byte >= 0.0);
    }

    #[test]
    fn terms_that_do_not_occur_cost_nothing() {
        let work = |bytes| Work { bytes, ..Work::default() };
        let samples = [(100, 1e-5), (1_000_000, 1e-4)]
            .map(|(bytes, seconds)| Sample { work: work(bytes), seconds });
        let found = fit(&samples);
        assert_eq!((found.seconds_per_flop, found.seconds_per_function), (0.0, 0.0));
        assert_near(found.seconds(&work(100), false), 1e-5);
        assert_near(found.seconds(&work(1_000_000), false), 1e-4);
    }

    #[test]
    fn nothing_measured_costs_nothing() {
        assert_eq!(fit(&[]), Cost::default());
    }
}
