//! Where two JSON documents differ. Pure.

use serde_json::Value;

/// Where two JSON values differ first, as a JSON pointer. Numbers are equal if their values are, however
/// long they are.
pub(super) fn first_difference(a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let further = b.keys().find(|name| !a.contains_key(*name));
            let inner = a.iter().find_map(|(name, value)| match b.get(name) {
                Some(other) => first_difference(value, other).map(|rest| format!("/{name}{rest}")),
                None => Some(format!("/{name}")),
            });
            inner.or_else(|| further.map(|name| format!("/{name}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(index, (a, b))| {
                first_difference(a, b).map(|rest| format!("/{index}{rest}"))
            })
        }
        (Value::Number(a), Value::Number(b)) => {
            (canonical(&a.to_string()) != canonical(&b.to_string())).then(String::new)
        }
        _ => (a != b).then(String::new),
    }
}

/// A decimal number as sign, digits and exponent, so that equal numbers are alike.
fn canonical(number: &str) -> (bool, String, i64) {
    let (is_negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    if significant.trim_start_matches('0').is_empty() {
        return (false, "0".into(), 0);
    }
    let zeros = (digits.len() - significant.len()) as i64;
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX);
    let exponent = exponent.saturating_add(zeros - fraction.len() as i64);
    (
        is_negative,
        significant.trim_start_matches('0').to_owned(),
        exponent,
    )
}
