//! Regular expressions for numbers within bounds, which a JSON schema needs where they are texts.

/// The whole numbers from `least` to `most`.
pub(crate) fn whole_pattern(least: u64, most: u64) -> String {
    let mut alternatives = Vec::new();
    let mut from = least;
    while from <= most {
        // The largest run of numbers from here that differ in their last digits alone.
        let mut block = 1;
        while from != 0 && from.is_multiple_of(block * 10) && from + (block * 10 - 1) <= most {
            block *= 10;
        }
        let digit = (from / block) % 10;
        let blocks = (most - from + 1) / block;
        let last = (digit + blocks - 1).min(9);
        let mut pattern = match from / block / 10 {
            0 => String::new(),
            before => before.to_string(),
        };
        pattern += &match last {
            last if last == digit => digit.to_string(),
            last => format!("[{digit}-{last}]"),
        };
        pattern += &"[0-9]".repeat(block.ilog10() as usize);
        alternatives.push(pattern);
        from += (last - digit + 1) * block;
    }
    alternatives.join("|")
}

/// The numbers from `least`, which is a whole number or 0.1, to `most`, with or without decimals.
pub(crate) fn float_pattern(least: f64, most: u32) -> String {
    let decimals = "(\\.[0-9]+)?";
    let below_one = if least > 0.0 { "0\\.[1-9][0-9]*" } else { "0(\\.[0-9]+)?" };
    let mut pattern = format!("{below_one}|{most}(\\.0+)?");
    if most > 1 {
        pattern += &format!("|({}){decimals}", whole_pattern(1, u64::from(most) - 1));
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::whole_pattern;

    /// Whether a text matches one of the alternatives, of which each is made of digits and classes.
    fn matches(pattern: &str, text: &str) -> bool {
        pattern.split('|').any(|alternative| {
            let mut text = text.bytes();
            let mut rest = alternative.bytes();
            while let Some(byte) = rest.next() {
                let Some(digit) = text.next() else { return false };
                let (low, high) = match byte {
                    b'[' => {
                        let low = rest.next().unwrap();
                        assert_eq!(rest.next(), Some(b'-'));
                        let high = rest.next().unwrap();
                        assert_eq!(rest.next(), Some(b']'));
                        (low, high)
                    }
                    byte => (byte, byte),
                };
                if !(low..=high).contains(&digit) {
                    return false;
                }
            }
            text.next().is_none()
        })
    }

    #[test]
    fn a_pattern_has_its_numbers_and_no_others() {
        for (least, most) in
            [(0, 0), (0, 100), (1, 1000), (16, 16_384), (1, 239), (7, 9), (95, 1204)]
        {
            let pattern = whole_pattern(least, most);
            for number in 0..=20_000 {
                let wanted = (least..=most).contains(&number);
                assert_eq!(matches(&pattern, &number.to_string()), wanted, "{number}: {pattern}");
            }
            assert!(!matches(&pattern, "00") && !matches(&pattern, ""));
        }
        let seeds = whole_pattern(0, (1 << 53) - 1);
        assert!(matches(&seeds, "9007199254740991") && !matches(&seeds, "9007199254740992"));
    }
}
