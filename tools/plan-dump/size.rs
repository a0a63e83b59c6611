//! Bytes in words, and back.

/// `1.50 GiB`, `12.0 KiB`, `64 B`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut value, mut unit) = (n as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 10.0 { 2 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// The same with a sign, for differences.
pub fn signed(n: i64) -> String {
    format!("{}{}", if n < 0 { '-' } else { '+' }, bytes(n.unsigned_abs()))
}

/// `12.3 GFLOP`.
pub fn flops(n: f64) -> String {
    const UNITS: [(&str, f64); 5] = [("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)];
    let found = UNITS.iter().find(|(_, scale)| n.abs() >= *scale);
    found.map_or(format!("{n:.0} FLOP"), |(prefix, scale)| format!("{:.3} {prefix}FLOP", n / scale))
}

/// Inverse of [`bytes`], loosely: `1GiB`, `512 MiB`, `0.5g`, `1500000`. K, M, G and T count in 1024.
///
/// # Errors
/// What is wrong, for clap to print.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| "expected a size such as 1GiB or 1500000".to_string())?;
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 1,
        "m" | "mib" => 2,
        "g" | "gib" => 3,
        "t" | "tib" => 4,
        other => return Err(format!("unknown unit '{other}'; use B, KiB, MiB, GiB or TiB")),
    };
    let value = number * 1024f64.powi(power);
    if value < 9e18 { Ok(value as u64) } else { Err("is larger than any memory".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_words_and_back() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1_048_575, "1.00 MiB"), (3 << 29, "1.50 GiB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(parse("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse("640"), Ok(640));
        assert_eq!(parse("2m"), Ok(2 << 20));
        assert!(parse("").is_err() && parse("x").is_err() && parse("1 parsec").is_err() && parse("9999999t").is_err());
        assert_eq!(signed(-2048), "-2.00 KiB");
        assert_eq!(flops(12.34e9), "12.340 GFLOP");
    }
}
