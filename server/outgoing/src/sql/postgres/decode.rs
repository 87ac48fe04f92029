//! Values as PostgreSQL sends them: its binary forms (`src/backend/utils/adt` of PostgreSQL, the functions
//! called `…send`).

use crosstie_model::outgoing::SqlValue;
use time::{Date, Duration, PrimitiveDateTime, Time, UtcOffset};
use tokio_postgres::types::{Kind, Type};

use super::encode::base;

/// The first of the days and microseconds that the server counts.
const EPOCH: Date = time::macros::date!(2000 - 01 - 01);

/// Why a value cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// It is of a type that services have none for.
    #[error("is of type {0}, which has no counterpart here: cast it, as in column::text")]
    Type(String),
    /// It is one that services' types have no room for.
    #[error("holds {0}, which has no counterpart here: cast it, as in column::text")]
    Value(&'static str),
    /// It is not what its type promises.
    #[error("holds bytes that are no {0}")]
    Malformed(String),
}

/// Whether values of `ty` can be decoded.
///
/// # Errors
/// They cannot.
pub(super) fn check(ty: &Type) -> Result<(), DecodeError> {
    let ty = base(ty);
    match ty.kind() {
        Kind::Array(item) => check(item),
        Kind::Enum(_) => Ok(()),
        _ if is_text(ty) => Ok(()),
        _ => match *ty {
            Type::BOOL
            | Type::INT2
            | Type::INT4
            | Type::INT8
            | Type::OID
            | Type::FLOAT4
            | Type::FLOAT8
            | Type::NUMERIC
            | Type::BYTEA
            | Type::DATE
            | Type::TIME
            | Type::TIMETZ
            | Type::TIMESTAMP
            | Type::TIMESTAMPTZ
            | Type::INTERVAL
            | Type::UUID
            | Type::JSON
            | Type::JSONB
            | Type::INET
            | Type::CIDR
            | Type::MACADDR
            | Type::MACADDR8
            | Type::VOID => Ok(()),
            _ => Err(DecodeError::Type(ty.to_string())),
        },
    }
}

/// Types whose binary form is their text.
fn is_text(ty: &Type) -> bool {
    matches!(*ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML)
        || ty.name() == "citext"
}

/// The value that `bytes` of type `ty` are.
///
/// # Errors
/// They are none, or one without a counterpart.
pub(super) fn decode(ty: &Type, bytes: &[u8]) -> Result<SqlValue, DecodeError> {
    let ty = base(ty);
    let mut input = Input { rest: bytes, ty };
    match ty.kind() {
        Kind::Array(item) => return array(item, &mut input),
        Kind::Enum(_) => return input.text().map(SqlValue::Text),
        _ if is_text(ty) => return input.text().map(SqlValue::Text),
        _ => {}
    }
    Ok(match *ty {
        Type::BOOL => SqlValue::Bool(input.take::<1>()? != [0]),
        Type::INT2 => SqlValue::Int(i16::from_be_bytes(input.take()?).into()),
        Type::INT4 => SqlValue::Int(i32::from_be_bytes(input.take()?).into()),
        Type::INT8 => SqlValue::Int(i64::from_be_bytes(input.take()?)),
        Type::OID => SqlValue::Int(u32::from_be_bytes(input.take()?).into()),
        Type::FLOAT4 => float4(f32::from_be_bytes(input.take()?)),
        Type::FLOAT8 => SqlValue::Float(f64::from_be_bytes(input.take()?)),
        Type::NUMERIC => SqlValue::Decimal(numeric(&mut input)?),
        Type::BYTEA => SqlValue::Bytes(bytes.to_vec().into()),
        Type::DATE => SqlValue::Date(date(i32::from_be_bytes(input.take()?))?),
        Type::TIME => SqlValue::Time(time_of_day(i64::from_be_bytes(input.take()?))?),
        Type::TIMETZ => {
            let time = time_of_day(i64::from_be_bytes(input.take()?))?;
            // Seconds west of Greenwich.
            let west = i32::from_be_bytes(input.take()?);
            let offset = UtcOffset::from_whole_seconds(west.saturating_neg());
            SqlValue::TimeTz(time, offset.map_err(|_| input.malformed())?)
        }
        Type::TIMESTAMP => SqlValue::Timestamp(timestamp(i64::from_be_bytes(input.take()?))?),
        Type::TIMESTAMPTZ => {
            SqlValue::TimestampTz(timestamp(i64::from_be_bytes(input.take()?))?.assume_utc())
        }
        Type::INTERVAL => SqlValue::Interval(interval(&mut input)?),
        Type::UUID => SqlValue::Uuid(u128::from_be_bytes(input.take()?)),
        Type::JSON => SqlValue::Json(input.text()?),
        Type::JSONB => match input.take::<1>()? {
            [1] => SqlValue::Json(input.text()?),
            _ => return Err(input.malformed()),
        },
        Type::INET => SqlValue::Text(network(&mut input, Mask::WhenNarrower)?),
        Type::CIDR => SqlValue::Text(network(&mut input, Mask::Always)?),
        Type::MACADDR => SqlValue::Text(hardware(&input.take::<6>()?)),
        Type::MACADDR8 => SqlValue::Text(hardware(&input.take::<8>()?)),
        Type::VOID => SqlValue::Null,
        _ => return Err(DecodeError::Type(ty.to_string())),
    })
}

/// Bytes to be read.
struct Input<'a> {
    rest: &'a [u8],
    ty: &'a Type,
}

impl<'a> Input<'a> {
    fn malformed(&self) -> DecodeError {
        DecodeError::Malformed(self.ty.to_string())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else { return Err(self.malformed()) };
        self.rest = rest;
        Ok(*taken)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else { return Err(self.malformed()) };
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        let text = std::str::from_utf8(self.rest).map_err(|_| self.malformed())?;
        self.rest = &[];
        Ok(text.to_owned())
    }
}

/// The double that is written as the float is: 0.1 stays 0.1.
fn float4(number: f32) -> SqlValue {
    let shortest = number.to_string().parse();
    SqlValue::Float(shortest.unwrap_or_else(|_| f64::from(number)))
}

fn date(days: i32) -> Result<Date, DecodeError> {
    if matches!(days, i32::MAX | i32::MIN) {
        return Err(DecodeError::Value("an infinite date"));
    }
    let date = EPOCH.checked_add(Duration::days(days.into()));
    in_range(date)
}

/// Services' years go from 1 to 9999.
fn in_range(date: Option<Date>) -> Result<Date, DecodeError> {
    let outside = DecodeError::Value("a date outside the years 1 to 9999");
    date.filter(|date| (1..=9999).contains(&date.year())).ok_or(outside)
}

fn time_of_day(micros: i64) -> Result<Time, DecodeError> {
    // PostgreSQL has an hour 24 of one moment.
    if micros == 86_400_000_000 {
        return Err(DecodeError::Value("the time 24:00:00"));
    }
    let midnight = PrimitiveDateTime::new(EPOCH, Time::MIDNIGHT);
    let moment = midnight.checked_add(Duration::microseconds(micros));
    let time = moment.filter(|moment| moment.date() == EPOCH).map(PrimitiveDateTime::time);
    time.ok_or(DecodeError::Value("a time outside its day"))
}

fn timestamp(micros: i64) -> Result<PrimitiveDateTime, DecodeError> {
    if matches!(micros, i64::MAX | i64::MIN) {
        return Err(DecodeError::Value("an infinite timestamp"));
    }
    let moment = PrimitiveDateTime::new(EPOCH, Time::MIDNIGHT).checked_add(Duration::microseconds(micros));
    in_range(moment.map(PrimitiveDateTime::date))?;
    moment.ok_or(DecodeError::Value("a timestamp outside the years 1 to 9999"))
}

/// A month has no fixed length, and a span of time does.
fn interval(input: &mut Input<'_>) -> Result<Duration, DecodeError> {
    let micros = i64::from_be_bytes(input.take()?);
    let days = i32::from_be_bytes(input.take()?);
    let months = i32::from_be_bytes(input.take()?);
    if months != 0 {
        return Err(DecodeError::Value("an interval of months or years, which have no fixed length"));
    }
    Ok(Duration::microseconds(micros) + Duration::days(days.into()))
}

/// Groups of four decimal digits, the first `weight` groups before the point; `scale` digits behind it are
/// shown.
fn numeric(input: &mut Input<'_>) -> Result<String, DecodeError> {
    let groups = u16::from_be_bytes(input.take()?);
    let weight = i16::from_be_bytes(input.take()?);
    let sign = u16::from_be_bytes(input.take()?);
    let scale = usize::from(u16::from_be_bytes(input.take()?));
    let mut out = match sign {
        0x0000 => String::new(),
        0x4000 => "-".to_owned(),
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        _ => return Err(input.malformed()),
    };
    let groups: Vec<u16> =
        (0..groups).map(|_| input.take().map(u16::from_be_bytes)).collect::<Result<_, _>>()?;
    if groups.iter().any(|group| *group > 9_999) {
        return Err(input.malformed());
    }
    let group = |index: i32| usize::try_from(index).ok().and_then(|index| groups.get(index)).copied();
    let weight = i32::from(weight);
    if weight < 0 {
        out.push('0');
    } else {
        for index in 0..=weight {
            let digits = format!("{:04}", group(index).unwrap_or_default());
            out.push_str(if index == 0 { digits.trim_start_matches('0') } else { &digits });
        }
        if out.is_empty() || out == "-" {
            out.push('0');
        }
    }
    if scale > 0 {
        let first = weight + 1;
        let count = i32::try_from(scale.div_ceil(4)).unwrap_or(i32::MAX);
        let fraction: String = (first..first.saturating_add(count))
            .map(|at| format!("{:04}", group(at).unwrap_or_default()))
            .collect();
        out.push('.');
        out.push_str(fraction.get(..scale).unwrap_or(&fraction));
    }
    Ok(out)
}

/// When an address's mask is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mask {
    Always,
    WhenNarrower,
}

fn network(input: &mut Input<'_>, mask: Mask) -> Result<String, DecodeError> {
    let [family, bits, _is_cidr, length] = input.take::<4>()?;
    let (address, full) = match (family, length) {
        (2, 4) => (std::net::IpAddr::from(input.take::<4>()?), 32),
        (3, 16) => (std::net::IpAddr::from(input.take::<16>()?), 128),
        _ => return Err(input.malformed()),
    };
    let is_shown = mask == Mask::Always || bits != full;
    Ok(if is_shown { format!("{address}/{bits}") } else { address.to_string() })
}

fn hardware(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn array(item: &Type, input: &mut Input<'_>) -> Result<SqlValue, DecodeError> {
    let dimensions = i32::from_be_bytes(input.take()?);
    let _has_null = i32::from_be_bytes(input.take()?);
    let _item_type = u32::from_be_bytes(input.take()?);
    let mut lengths = Vec::new();
    for _ in 0..dimensions.clamp(0, 6) {
        let length = i32::from_be_bytes(input.take()?);
        let _first_index = i32::from_be_bytes(input.take()?);
        lengths.push(usize::try_from(length).map_err(|_| input.malformed())?);
    }
    // Each item takes four bytes at least.
    let total = lengths.iter().try_fold(1_usize, |total, length| total.checked_mul(*length));
    if !(0..=6).contains(&dimensions) || total.is_none_or(|total| total > input.rest.len() / 4 + 1) {
        return Err(input.malformed());
    }
    if lengths.is_empty() || total == Some(0) {
        return Ok(SqlValue::Array(Vec::new()));
    }
    items(item, &lengths, input)
}

fn items(item: &Type, lengths: &[usize], input: &mut Input<'_>) -> Result<SqlValue, DecodeError> {
    let Some((length, inner)) = lengths.split_first() else {
        let length = i32::from_be_bytes(input.take()?);
        return match usize::try_from(length) {
            Ok(length) => decode(item, input.slice(length)?),
            Err(_) => Ok(SqlValue::Null),
        };
    };
    (0..*length).map(|_| items(item, inner, input)).collect::<Result<Vec<_>, _>>().map(SqlValue::Array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numeric_bytes(weight: i16, sign: u16, scale: u16, groups: &[u16]) -> Vec<u8> {
        let head =
            [u16::try_from(groups.len()).unwrap(), u16::from_be_bytes(weight.to_be_bytes()), sign, scale];
        head.iter().chain(groups).flat_map(|number| number.to_be_bytes()).collect()
    }

    #[test]
    fn a_numeric_has_every_digit_it_was_given() {
        let cases = [
            (numeric_bytes(0, 0, 0, &[]), "0"),
            (numeric_bytes(0, 0, 2, &[]), "0.00"),
            (numeric_bytes(0, 0, 2, &[1, 1000]), "1.10"),
            (numeric_bytes(1, 0x4000, 0, &[1, 0]), "-10000"),
            (numeric_bytes(2, 0, 0, &[1]), "100000000"),
            (numeric_bytes(-2, 0, 8, &[12]), "0.00000012"),
            (numeric_bytes(-1, 0x4000, 3, &[1230]), "-0.123"),
            (numeric_bytes(0, 0xC000, 0, &[]), "NaN"),
            (numeric_bytes(0, 0xF000, 0, &[]), "-Infinity"),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(decode(&Type::NUMERIC, &bytes), Ok(SqlValue::Decimal(wanted.into())));
        }
    }

    #[test]
    fn what_services_have_no_room_for_is_an_error() {
        let month = [&[0; 8][..], &0_i32.to_be_bytes(), &1_i32.to_be_bytes()].concat();
        let cases: [(Type, Vec<u8>); 6] = [
            (Type::DATE, i32::MAX.to_be_bytes().to_vec()),
            (Type::DATE, 5_000_000_i32.to_be_bytes().to_vec()),
            (Type::TIMESTAMPTZ, i64::MIN.to_be_bytes().to_vec()),
            (Type::TIME, 86_400_000_000_i64.to_be_bytes().to_vec()),
            (Type::INTERVAL, month),
            (Type::TIMESTAMP, (-64_000_000_000_000_000_i64 * 2).to_be_bytes().to_vec()),
        ];
        for (ty, bytes) in cases {
            assert!(matches!(decode(&ty, &bytes), Err(DecodeError::Value(_))), "{ty}");
        }
        assert_eq!(check(&Type::POINT), Err(DecodeError::Type("point".into())));
        assert!(check(&Type::POINT_ARRAY).is_err());
        assert!(check(&Type::INT4_ARRAY).is_ok());
    }

    #[test]
    fn a_float_keeps_the_digits_it_is_written_with() {
        assert_eq!(decode(&Type::FLOAT4, &0.1_f32.to_be_bytes()), Ok(SqlValue::Float(0.1)));
    }

    #[test]
    fn addresses_are_shown_as_the_server_shows_them() {
        let host = [2, 32, 0, 4, 10, 0, 0, 7];
        let net = [2, 24, 1, 4, 10, 0, 0, 0];
        assert_eq!(decode(&Type::INET, &host), Ok(SqlValue::Text("10.0.0.7".into())));
        assert_eq!(decode(&Type::INET, &net), Ok(SqlValue::Text("10.0.0.0/24".into())));
        assert_eq!(decode(&Type::CIDR, &host), Ok(SqlValue::Text("10.0.0.7/32".into())));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for ty in [
                Type::NUMERIC, Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::INET, Type::INTERVAL, Type::TIMETZ,
                Type::TIMESTAMPTZ, Type::DATE, Type::JSONB, Type::UUID, Type::BOOL, Type::MACADDR, Type::TEXT,
            ] {
                let _ = decode(&ty, &bytes);
            }
        }
    }
}
