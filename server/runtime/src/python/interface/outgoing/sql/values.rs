//! Values of databases and of Python, each made the other.

use bytes::Bytes;
use crosstie_model::outgoing::{SqlType, SqlValue};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDate, PyDateAccess as _, PyDateTime, PyDelta, PyDeltaAccess as _, PyDict,
    PyFloat, PyFrozenSet, PyInt, PyList, PyMemoryView, PySet, PyString, PyTime, PyTimeAccess as _, PyTuple,
    PyTzInfo,
};
use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use crate::python::codec;

/// How deep lists may hold lists.
const MAX_DEPTH: usize = 16;

/// Classes of the standard library that values are made of.
struct Classes {
    decimal: Py<PyAny>,
    uuid: Py<PyAny>,
    enumeration: Py<PyAny>,
    mapping: Py<PyAny>,
    loads: Py<PyAny>,
    /// IPv4Address, IPv6Address and their networks and interfaces.
    addresses: Vec<Py<PyAny>>,
}

fn classes(py: Python<'_>) -> PyResult<&'static Classes> {
    static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
    CLASSES.get_or_try_init(py, || {
        let find = |module: &str, name: &str| Ok::<_, PyErr>(py.import(module)?.getattr(name)?.unbind());
        let addresses =
            ["IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface"];
        Ok(Classes {
            decimal: find("decimal", "Decimal")?,
            uuid: find("uuid", "UUID")?,
            enumeration: find("enum", "Enum")?,
            mapping: find("collections.abc", "Mapping")?,
            loads: find("json", "loads")?,
            addresses: addresses.iter().map(|name| find("ipaddress", name)).collect::<Result<_, _>>()?,
        })
    })
}

/// `value` as Python has it.
///
/// # Errors
/// JSON that is none.
pub(super) fn to_python<'py>(py: Python<'py>, value: &SqlValue) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        SqlValue::Null => py.None().into_bound(py),
        SqlValue::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        SqlValue::Int(number) => PyInt::new(py, *number).into_any(),
        SqlValue::UInt(number) => PyInt::new(py, *number).into_any(),
        SqlValue::Float(number) => PyFloat::new(py, *number).into_any(),
        SqlValue::Decimal(text) => classes(py)?.decimal.bind(py).call1((text.as_str(),))?,
        SqlValue::Text(text) => PyString::new(py, text).into_any(),
        SqlValue::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        SqlValue::Date(date) => PyDate::new(py, date.year(), date.month().into(), date.day())?.into_any(),
        SqlValue::Time(time) => time_to_python(py, *time, None)?.into_any(),
        SqlValue::TimeTz(time, offset) => time_to_python(py, *time, Some(&zone(py, *offset)?))?.into_any(),
        SqlValue::Timestamp(timestamp) => timestamp_to_python(py, *timestamp, None)?.into_any(),
        SqlValue::TimestampTz(moment) => {
            let here = PrimitiveDateTime::new(moment.date(), moment.time());
            timestamp_to_python(py, here, Some(&zone(py, moment.offset())?))?.into_any()
        }
        SqlValue::Interval(span) => span_to_python(py, *span)?.into_any(),
        SqlValue::Uuid(uuid) => {
            let named = PyDict::new(py);
            named.set_item(intern!(py, "int"), *uuid)?;
            classes(py)?.uuid.bind(py).call((), Some(&named))?
        }
        // Python's own reader: it keeps every digit.
        SqlValue::Json(text) => classes(py)?.loads.bind(py).call1((text.as_str(),))?,
        SqlValue::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
    })
}

fn time_to_python<'py>(
    py: Python<'py>,
    time: Time,
    zone: Option<&Bound<'py, PyTzInfo>>,
) -> PyResult<Bound<'py, PyTime>> {
    PyTime::new(py, time.hour(), time.minute(), time.second(), time.microsecond(), zone)
}

fn timestamp_to_python<'py>(
    py: Python<'py>,
    timestamp: PrimitiveDateTime,
    zone: Option<&Bound<'py, PyTzInfo>>,
) -> PyResult<Bound<'py, PyDateTime>> {
    let (date, time) = (timestamp.date(), timestamp.time());
    PyDateTime::new(
        py,
        date.year(),
        date.month().into(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond(),
        zone,
    )
}

fn zone(py: Python<'_>, offset: UtcOffset) -> PyResult<Bound<'_, PyTzInfo>> {
    if offset.is_utc() {
        return Ok(PyTzInfo::utc(py)?.to_owned());
    }
    PyTzInfo::fixed_offset(py, PyDelta::new(py, 0, offset.whole_seconds(), 0, true)?)
}

fn span_to_python(py: Python<'_>, span: Duration) -> PyResult<Bound<'_, PyDelta>> {
    let too_long = || PyValueError::new_err("an interval is longer than a timedelta can be");
    let rest = span - Duration::days(span.whole_days());
    let days = i32::try_from(span.whole_days()).map_err(|_| too_long())?;
    let seconds = i32::try_from(rest.whole_seconds()).map_err(|_| too_long())?;
    PyDelta::new(py, days, seconds, rest.subsec_microseconds(), true)
}

/// `value` as databases have it.
///
/// # Errors
/// They have nothing for it.
pub(super) fn from_python(value: &Bound<'_, PyAny>) -> PyResult<SqlValue> {
    from_python_at(value, 0)
}

fn from_python_at(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<SqlValue> {
    if value.is_none() {
        return Ok(SqlValue::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(SqlValue::Text(text.to_str()?.to_owned()));
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(SqlValue::Bool(flag.is_true()));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        return from_int(number);
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(SqlValue::Float(number.value()));
    }
    if let Ok(moment) = value.cast::<PyDateTime>() {
        return from_datetime(moment);
    }
    if let Ok(date) = value.cast::<PyDate>() {
        return date_of(date.get_year(), date.get_month(), date.get_day()).map(SqlValue::Date);
    }
    if let Ok(time) = value.cast::<PyTime>() {
        let clock = clock_of(time.get_hour(), time.get_minute(), time.get_second(), time.get_microsecond())?;
        return Ok(match offset_of(value)? {
            Some(offset) => SqlValue::TimeTz(clock, offset),
            None => SqlValue::Time(clock),
        });
    }
    if let Ok(span) = value.cast::<PyDelta>() {
        return Ok(SqlValue::Interval(
            Duration::days(span.get_days().into())
                + Duration::seconds(span.get_seconds().into())
                + Duration::microseconds(span.get_microseconds().into()),
        ));
    }
    if let Some(bytes) = bytes_of(value)? {
        return Ok(SqlValue::Bytes(bytes));
    }
    from_object(value, depth)
}

/// Anything but the types with a cast of their own.
fn from_object(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<SqlValue> {
    let py = value.py();
    let classes = classes(py)?;
    if value.is_instance(classes.decimal.bind(py))? {
        return Ok(SqlValue::Decimal(value.str()?.to_str()?.to_owned()));
    }
    if value.is_instance(classes.uuid.bind(py))? {
        return value.getattr(intern!(py, "int"))?.extract().map(SqlValue::Uuid);
    }
    if value.is_instance(classes.enumeration.bind(py))? {
        return from_python_at(&value.getattr(intern!(py, "value"))?, depth);
    }
    let is_list = value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>();
    if is_list || value.is_instance_of::<PySet>() || value.is_instance_of::<PyFrozenSet>() {
        if depth >= MAX_DEPTH {
            return Err(PyValueError::new_err(format!("lists are nested more than {MAX_DEPTH} deep")));
        }
        let items = value.try_iter()?.map(|item| from_python_at(&item?, depth + 1));
        return items.collect::<PyResult<Vec<_>>>().map(SqlValue::Array);
    }
    let is_model = value.get_type().hasattr(intern!(py, "__crosstie_fields__"))?;
    if is_model || value.is_instance(classes.mapping.bind(py))? {
        let text = codec::to_vec(value, None).map_err(codec::EncodeError::into_exception)?;
        let text = String::from_utf8(text).map_err(|error| PyValueError::new_err(error.to_string()))?;
        return Ok(SqlValue::Json(text));
    }
    for class in &classes.addresses {
        if value.is_instance(class.bind(py))? {
            return Ok(SqlValue::Text(value.str()?.to_str()?.to_owned()));
        }
    }
    let name = value.get_type().name()?;
    Err(PyTypeError::new_err(format!("databases have no type for a {name}")))
}

/// A number of any length: beyond 64 bits it is a decimal one.
fn from_int(number: &Bound<'_, PyInt>) -> PyResult<SqlValue> {
    if let Ok(number) = number.extract::<i64>() {
        return Ok(SqlValue::Int(number));
    }
    if let Ok(number) = number.extract::<u64>() {
        return Ok(SqlValue::UInt(number));
    }
    // An IntEnum's text is its name; int's own is the number.
    let text = number.py().get_type::<PyInt>().call_method1(intern!(number.py(), "__repr__"), (number,))?;
    Ok(SqlValue::Decimal(text.extract()?))
}

fn from_datetime(moment: &Bound<'_, PyDateTime>) -> PyResult<SqlValue> {
    let date = date_of(moment.get_year(), moment.get_month(), moment.get_day())?;
    let time =
        clock_of(moment.get_hour(), moment.get_minute(), moment.get_second(), moment.get_microsecond())?;
    let here = PrimitiveDateTime::new(date, time);
    Ok(match offset_of(moment.as_any())? {
        Some(offset) => {
            SqlValue::TimestampTz(OffsetDateTime::new_in_offset(here.date(), here.time(), offset))
        }
        None => SqlValue::Timestamp(here),
    })
}

fn date_of(year: i32, month: u8, day: u8) -> PyResult<Date> {
    let wrong = |_| PyValueError::new_err("is no date");
    Date::from_calendar_date(year, Month::try_from(month).map_err(wrong)?, day).map_err(wrong)
}

fn clock_of(hour: u8, minute: u8, second: u8, micros: u32) -> PyResult<Time> {
    Time::from_hms_micro(hour, minute, second, micros).map_err(|_| PyValueError::new_err("is no time"))
}

/// How far from UTC a datetime or time says it is, if it does.
fn offset_of(value: &Bound<'_, PyAny>) -> PyResult<Option<UtcOffset>> {
    let offset = value.call_method0(intern!(value.py(), "utcoffset"))?;
    if offset.is_none() {
        return Ok(None);
    }
    let offset = offset.cast_into::<PyDelta>()?;
    let seconds = offset.get_days() * 86_400 + offset.get_seconds();
    let offset = UtcOffset::from_whole_seconds(seconds).ok().filter(|_| offset.get_microseconds() == 0);
    offset
        .map(Some)
        .ok_or_else(|| PyValueError::new_err("has an offset from UTC that is no number of seconds"))
}

fn bytes_of(value: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Some(Bytes::copy_from_slice(bytes.as_bytes())));
    }
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        return Ok(Some(bytes.to_vec().into()));
    }
    if value.is_instance_of::<PyMemoryView>() {
        let bytes = value.call_method0(intern!(value.py(), "tobytes"))?.cast_into::<PyBytes>()?;
        return Ok(Some(Bytes::copy_from_slice(bytes.as_bytes())));
    }
    Ok(None)
}

/// The type that a word or a class of Python's names.
///
/// # Errors
/// None of databases'.
pub(super) fn type_of(value: &Bound<'_, PyAny>) -> PyResult<SqlType> {
    let word = match value.cast::<PyString>() {
        Ok(word) => word.to_str()?.to_ascii_lowercase(),
        Err(_) => value.getattr(intern!(value.py(), "__name__"))?.extract::<String>()?.to_ascii_lowercase(),
    };
    let word = match word.as_str() {
        "str" => "text",
        "datetime" => "timestamp",
        "timedelta" => "interval",
        "dict" | "list" => "json",
        other => other,
    };
    SqlType::named(word).ok_or_else(|| {
        let known: Vec<_> = SqlType::ALL.iter().map(|(word, _)| *word).collect();
        PyValueError::new_err(format!("{word:?} is no type of a column; there are {}", known.join(", ")))
    })
}
