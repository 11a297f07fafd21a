//! Fractions and probabilities as people read them.

/// `75%`, `0.5%`: a fraction in hundredths, without the noise of rounding.
pub fn percent(fraction: f64) -> String {
    format!("{}%", (fraction * 1e6).round() / 1e4)
}

/// A small chance as people read it: `0.0312`, `4.1e-8`.
pub fn chance(p: f64) -> String {
    match p {
        p if p >= 1e-3 => format!("{}", (p * 1e4).round() / 1e4),
        p if p < 1e-99 => "0".into(),
        p if (p / 10_f64.powi(p.log10().round() as i32) - 1.0).abs() < 1e-9 => format!("{p:.0e}"),
        p => format!("{p:.1e}"),
    }
}
