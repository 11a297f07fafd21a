//! Kubernetes quantities (`500m`, `1Gi`), as far as `resourceFieldRef` needs them.

/// The value of a quantity in thousandths, rounded up as Kubernetes does; `None`: not a quantity.
pub fn thousandths(text: &str) -> Option<i128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-' && c != '+').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (numerator, denominator): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10i128.checked_pow(power)?, 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let exact = digits.checked_mul(numerator)?.checked_mul(1000)?;
    Some(divide_up(exact, denominator.checked_mul(scale)?))
}

/// `quantity` divided by `divisor`, rounded up to a whole number: what `resourceFieldRef` yields.
/// A divisor of zero, which the API server writes for an absent one, counts as one.
pub fn in_units_of(quantity: &str, divisor: &str) -> Option<i128> {
    let divisor = thousandths(divisor).filter(|d| *d != 0).unwrap_or(1000);
    Some(divide_up(thousandths(quantity)?, divisor))
}

fn divide_up(numerator: i128, denominator: i128) -> i128 {
    numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("2", "1", Some(2))]
    #[case("2", "0", Some(2))]
    #[case("2000m", "1", Some(2))]
    #[case("500m", "1", Some(1))]
    #[case("500m", "1m", Some(500))]
    #[case("1Gi", "1", Some(1_073_741_824))]
    #[case("1Gi", "1Mi", Some(1024))]
    #[case("1.5Gi", "1Mi", Some(1536))]
    #[case("1e3", "1", Some(1000))]
    #[case("128M", "1", Some(128_000_000))]
    #[case("1n", "1", Some(1))]
    #[case("banana", "1", None)]
    #[case("", "1", None)]
    fn resource_fields_are_rounded_up(#[case] quantity: &str, #[case] divisor: &str, #[case] expected: Option<i128>) {
        assert_eq!(in_units_of(quantity, divisor), expected);
    }

    proptest::proptest! {
        #[test]
        fn whole_numbers_are_themselves(n in 0i64..i64::MAX) {
            proptest::prop_assert_eq!(in_units_of(&n.to_string(), "1"), Some(i128::from(n)));
        }
    }
}
