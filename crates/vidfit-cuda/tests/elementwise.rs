//! Operations on each element by itself.

mod bed;
use bed::*;

#[test]
fn casts_and_sums_are_the_cpus() {
    let mut random = Random::new(1);
    for length in [1, 31, 256, 1000] {
        for from in DTYPES {
            for to in DTYPES {
                let mut operands = [
                    random.typed(from, &[length], 0.0, 4.0),
                    random.typed(to, &[length], 0.0, 4.0),
                ];
                compare("add", &operands, &[1], 0.0, 0.0, |d, t| d.add(&t[0], &mut t[1].clone()));
                operands[1].values.clear();
                compare("cast", &operands, &[1], 0.0, 0.0, |d, t| d.cast(&t[0], &mut t[1].clone()));
            }
        }
    }
}
