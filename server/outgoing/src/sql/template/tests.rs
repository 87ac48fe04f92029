use crosstie_model::outgoing::{Named, SqlValue};
use proptest::prelude::*;

use super::super::words::Dialect::{self, MySql, Postgres, Sqlite};
use super::*;

fn numbers(names: &[&str]) -> Named {
    let each = names.iter().zip(1..);
    each.map(|(name, number)| ((*name).to_owned(), SqlValue::Int(number))).collect()
}

fn rendered(statement: &str, dialect: Dialect, named: &Named) -> (String, usize) {
    let template = Template::parse(statement, dialect).unwrap();
    let rendered = template.render(named).unwrap();
    (rendered.text, rendered.values.len())
}

#[test]
fn parameters_become_the_databases_own_placeholders() {
    let named = numbers(&["a", "b"]);
    let statement = "SELECT :a, :b::text, :a WHERE x=:b";
    assert_eq!(rendered(statement, Postgres, &named), ("SELECT $1, $2::text, $1 WHERE x=$2".into(), 2));
    assert_eq!(rendered(statement, Sqlite, &named), ("SELECT ?1, ?2::text, ?1 WHERE x=?2".into(), 2));
    assert_eq!(rendered(statement, MySql, &named), ("SELECT ?, ?::text, ? WHERE x=?".into(), 4));
}

#[test]
fn strings_names_and_comments_hold_no_parameters() {
    let everywhere = [
        "SELECT ':a', 'it''s :a', \":a\", \"x\"\":a\"",
        "SELECT 1 -- :a\n, 2",
        "SELECT 1 -- :a",
        "SELECT /* :a 'b */ 1 /* it's :a */",
        "SELECT x::a, 12:a, arr[1:n]",
        "SELECT ' :a",
    ];
    for statement in everywhere {
        for dialect in [Postgres, MySql, Sqlite] {
            assert_eq!(rendered(statement, dialect, &Vec::new()), (statement.into(), 0), "{dialect:?}");
        }
    }
    let own = [
        (Postgres, "SELECT $$ :a $$, $t$ :a $$ :a $t$, E'\\' :a', e'\\\\', U&':a'"),
        (Postgres, "SELECT /* /* :a */ :a */ 1"),
        (Postgres, "SELECT a$b$ FROM t WHERE j ? 'x' AND j #> '{:a}'"),
        (MySql, "SELECT 'a\\' :a', \"b\\\" :a\", `:a``:a`"),
        (MySql, "SELECT 1 # :a\n, @x := 1"),
        (Sqlite, "SELECT [:a], `:a`, 'a\\'"),
    ];
    for (dialect, statement) in own {
        assert_eq!(rendered(statement, dialect, &Vec::new()), (statement.into(), 0), "{dialect:?}");
    }
}

#[test]
fn what_only_looks_like_a_string_or_comment_elsewhere_is_none() {
    let named = numbers(&["a"]);
    let cases = [
        (Postgres, "SELECT 'a\\', :a", "SELECT 'a\\', $1"),
        (Postgres, "SELECT 1 # :a", "SELECT 1 # $1"),
        (Postgres, "SELECT ':x' || e :a", "SELECT ':x' || e $1"),
        (Sqlite, "SELECT 'a\\', :a", "SELECT 'a\\', ?1"),
        (MySql, "SELECT 1--:a", "SELECT 1--?"),
        (MySql, "SELECT /* /* */ :a", "SELECT /* /* */ ?"),
        (Sqlite, "SELECT /* /* */ :a", "SELECT /* /* */ ?1"),
        (Postgres, "SELECT E'\\\\', :a", "SELECT E'\\\\', $1"),
        (Postgres, "SELECT arr[\\:n], :a", "SELECT arr[:n], $1"),
        (Postgres, "SELECT \\::a", "SELECT :$1"),
    ];
    for (dialect, statement, wanted) in cases {
        assert_eq!(rendered(statement, dialect, &named).0, wanted, "{dialect:?} {statement}");
    }
}

#[test]
fn placeholders_of_the_databases_own_are_refused() {
    let cases = [
        (Postgres, "SELECT $1", "$1"),
        (MySql, "SELECT ?", "?"),
        (Sqlite, "SELECT ?3", "?"),
        (Sqlite, "SELECT @a", "@a"),
        (Sqlite, "SELECT $a", "$a"),
    ];
    for (dialect, statement, found) in cases {
        let error = Template::parse(statement, dialect).unwrap_err();
        assert_eq!(error, StatementError::Placeholder(found.into()));
    }
    assert!(Template::parse("SELECT @a, $$?$$", Postgres).is_ok());
    assert!(Template::parse("SELECT @a, '?'", MySql).is_ok());
}

#[test]
fn a_parameter_without_a_value_is_an_error_and_one_too_many_is_none() {
    let template = Template::parse("SELECT :a", Postgres).unwrap();
    assert_eq!(template.render(&Vec::new()).unwrap_err(), StatementError::Missing("a".into()));
    assert_eq!(template.render(&numbers(&["a", "b"])).unwrap().values.len(), 1);
}

fn list(items: Vec<SqlValue>) -> Named {
    vec![("ids".into(), SqlValue::Array(items))]
}

#[test]
fn several_values_take_the_place_of_one_in_a_list() {
    let two = list(vec![SqlValue::Int(1), SqlValue::Int(2)]);
    let statement = "SELECT * FROM t WHERE a IN ( :ids ) AND b not in(:ids)";
    assert_eq!(
        rendered(statement, Postgres, &two),
        ("SELECT * FROM t WHERE a = ANY ($1) AND b <> ALL ($1)".into(), 1)
    );
    assert_eq!(
        rendered(statement, MySql, &two),
        ("SELECT * FROM t WHERE a IN ( ?, ? ) AND b not in(?, ?)".into(), 4)
    );
    assert_eq!(
        rendered(statement, Sqlite, &two),
        ("SELECT * FROM t WHERE a IN ( ?1, ?2 ) AND b not in(?3, ?4)".into(), 4)
    );
    let none = list(Vec::new());
    let (text, count) = rendered("SELECT 1 WHERE 1 NOT IN (:ids)", Sqlite, &none);
    assert_eq!((text.as_str(), count), ("SELECT 1 WHERE 1 NOT IN (SELECT NULL WHERE 0)", 0));
    let single = vec![("ids".to_owned(), SqlValue::Int(7))];
    assert_eq!(rendered("a IN (:ids)", Postgres, &single), ("a IN ($1)".into(), 1));
}

#[test]
fn a_decimal_number_is_told_to_be_one_where_the_database_would_take_it_for_text() {
    let cases = [
        ("1.10", "CAST(? AS DECIMAL(3,2))"),
        ("-0.001", "CAST(? AS DECIMAL(3,3))"),
        ("1E+3", "CAST(? AS DECIMAL(4,0))"),
        ("12E-3", "CAST(? AS DECIMAL(3,3))"),
        ("0", "CAST(? AS DECIMAL(1,0))"),
    ];
    for (number, wanted) in cases {
        let named = vec![("a".to_owned(), SqlValue::Decimal(number.into()))];
        assert_eq!(rendered(":a", MySql, &named).0, wanted, "{number}");
    }
    for number in ["NaN", "Infinity", "1E+70", "1E-40", ""] {
        let named = vec![("a".to_owned(), SqlValue::Decimal(number.into()))];
        let template = Template::parse(":a", MySql).unwrap();
        assert!(matches!(template.render(&named), Err(StatementError::Value { .. })), "{number}");
    }
}

#[test]
fn the_first_words_tell_what_a_statement_is_about() {
    let cases = [
        ("select 1", Verb::Plain),
        ("/* c */ (SELECT 1)", Verb::Plain),
        ("WITH x AS (SELECT 1) DELETE FROM t", Verb::Plain),
        ("begin", Verb::Transaction),
        ("-- x\nCommit", Verb::Transaction),
        ("ROLLBACK", Verb::Transaction),
        ("ROLLBACK WORK TO SAVEPOINT a", Verb::RollbackTo),
        ("savepoint a", Verb::Savepoint),
        ("CALL p()", Verb::Call),
        ("SET search_path = x", Verb::Session),
        ("", Verb::Plain),
    ];
    for (statement, wanted) in cases {
        assert_eq!(Template::parse(statement, Postgres).unwrap().verb, wanted, "{statement}");
    }
}

/// Pieces of statements that hold no parameter, whatever stands next to them.
fn inert(dialect: Dialect) -> impl Strategy<Value = String> {
    let common = prop_oneof![
        "[a-z ,()=+0-9.]{0,8}",
        "'([^'\\\\]|''){0,8}'",
        "\"([^\"\\\\]|\"\"){0,8}\"",
        "-- [^\n]{0,8}\n",
        "/\\* [a-z:' \"]{0,8} \\*/",
        Just("x::y".to_owned()),
    ];
    match dialect {
        Postgres => prop_oneof![
            common,
            "\\$q\\$[a-z:' \"]{0,8}\\$q\\$",
            "E'([^'\\\\]|\\\\'|\\\\\\\\|''){0,8}'",
            "/\\* /\\* :a \\*/ :a \\*/",
        ]
        .boxed(),
        MySql => prop_oneof![common, "'([^'\\\\]|\\\\'|\\\\\\\\){0,8}'", "`([^`]|``){0,8}`", "#[^\n]{0,8}\n"]
            .boxed(),
        Sqlite => prop_oneof![common, "'[^']{0,8}'", "`([^`]|``){0,8}`", "\\[[^\\]]{0,8}\\]"].boxed(),
    }
}

proptest! {
    #[test]
    fn exactly_the_parameters_that_were_put_in_are_found(
        (dialect, parts) in prop_oneof![Just(Postgres), Just(MySql), Just(Sqlite)].prop_flat_map(|dialect| {
            (Just(dialect), proptest::collection::vec((inert(dialect), any::<bool>()), 0..12))
        })
    ) {
        let (mut statement, mut wanted) = (String::new(), 0);
        for (text, is_followed) in &parts {
            statement.push_str(text);
            statement.push(' ');
            if *is_followed {
                statement.push_str(":p_1 ");
                wanted += 1;
            }
        }
        let template = Template::parse(&statement, dialect).unwrap();
        let found = template.pieces.iter().filter(|piece| !matches!(piece, Piece::Text(_))).count();
        prop_assert_eq!(found, wanted, "{}", statement);
    }

    #[test]
    fn any_text_is_taken_apart_and_put_together_again(
        statement in "\\PC{0,60}",
        dialect in prop_oneof![Just(Postgres), Just(MySql), Just(Sqlite)],
    ) {
        if let Ok(template) = Template::parse(&statement, dialect) {
            let text: String = template.pieces.iter().map(|piece| match piece {
                Piece::Text(text) => (*text).to_owned(),
                Piece::Value(name) => format!(":{name}"),
                Piece::Among { name, before, after, .. } => format!("{before}:{name}{after}"),
            }).collect();
            prop_assert_eq!(text.replace('\\', ""), statement.replace('\\', ""));
        }
    }
}
