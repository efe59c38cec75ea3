//! Numbers as people read them.

use std::time::Duration;

/// A duration as people say it: `3.2 s`, `4 min 10 s`, `2 h 5 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// Seconds as people say them; see [`duration`].
pub fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or("longer than anybody waits".into(), duration)
}

pub use vidfit_engine::bytes::in_words as size;

/// `VRAM Status: 8.20GB / 23.70GB used (35%), 15.50GB available`, of `VRAM` or `RAM`.
pub fn memory_status(kind: &str, used_bytes: u64, total_bytes: u64) -> String {
    let gigabytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!(
        "{kind} Status: {:.2}GB / {:.2}GB used ({:.0}%), {:.2}GB available",
        gigabytes(used_bytes),
        gigabytes(total_bytes),
        100.0 * used_bytes as f64 / total_bytes.max(1) as f64,
        gigabytes(total_bytes.saturating_sub(used_bytes)),
    )
}

/// `1 frame`, `49 frames`.
pub fn frames(count: usize) -> String {
    format!("{count} frame{}", if count == 1 { "" } else { "s" })
}

/// `5570283072` as `5,570,283,072`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let text = |seconds| duration(Duration::from_secs_f64(seconds));
        assert_eq!(text(3.21), "3.2 s");
        assert_eq!(text(250.0), "4 min 10 s");
        assert_eq!(text(7500.0), "2 h 5 min");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(512), "0.5 KB");
        assert_eq!(size(11_848_909), "11.3 MB");
        assert_eq!(size(9_706_626_089), "9.04 GB");
    }

    #[test]
    fn memory_reads_as_in_the_guide() {
        let bytes = |gigabytes: f64| (gigabytes * f64::from(1 << 30)) as u64;
        let expected = "VRAM Status: 8.20GB / 23.70GB used (35%), 15.50GB available";
        assert_eq!(memory_status("VRAM", bytes(8.2), bytes(23.7)), expected);
        let empty = "RAM Status: 0.00GB / 0.00GB used (0%), 0.00GB available";
        assert_eq!(memory_status("RAM", 0, 0), empty);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(5_570_283_072), "5,570,283,072");
        assert_eq!(grouped(736), "736");
    }
}
