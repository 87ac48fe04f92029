//! Users and tokens.

use std::time::Duration;

use crosstie_odb::{NewToken, OdbError, Role, User};

use crate::support::Database;

fn user(name: &str, role: Role) -> User {
    User { name: name.into(), role, password_hash: "$argon2id$hash".into() }
}

fn token(id: &str, user: &str, ttl: Option<Duration>) -> NewToken {
    NewToken { id: id.into(), user: user.into(), hash: "hash".into(), role: Role::Viewer, ttl }
}

pub(crate) async fn a_user_is_replaced_by_name(database: Database) {
    let odb = database.open();
    odb.put_user(&user("bob", Role::Viewer)).await.unwrap();
    odb.put_user(&user("ada", Role::Admin)).await.unwrap();
    odb.put_user(&user("bob", Role::Operator)).await.unwrap();
    assert_eq!(odb.users().await.unwrap(), [user("ada", Role::Admin), user("bob", Role::Operator)]);
    assert_eq!(odb.user("bob").await.unwrap(), Some(user("bob", Role::Operator)));
    assert_eq!(odb.user("Bob").await.unwrap(), None);
    assert!(odb.put_user(&user("", Role::Viewer)).await.is_err());
}

pub(crate) async fn a_removed_user_takes_its_tokens_along(database: Database) {
    let odb = database.open();
    let orphan = odb.put_token(&token("t0", "ada", None)).await.unwrap_err();
    assert!(matches!(orphan, OdbError::NotFound { .. }), "{orphan:?}");
    odb.put_user(&user("ada", Role::Admin)).await.unwrap();
    odb.put_token(&token("t1", "ada", None)).await.unwrap();
    odb.put_token(&token("t2", "ada", None)).await.unwrap();
    let taken = odb.put_token(&token("t1", "ada", None)).await.unwrap_err();
    assert!(matches!(taken, OdbError::Exists { .. }), "{taken:?}");
    // Replacing the user is not removing it.
    odb.put_user(&user("ada", Role::Viewer)).await.unwrap();
    assert_eq!(odb.tokens().await.unwrap().len(), 2);
    assert!(odb.delete_token("t2").await.unwrap());
    assert!(!odb.delete_token("t2").await.unwrap());
    assert!(odb.delete_user("ada").await.unwrap());
    assert!(!odb.delete_user("ada").await.unwrap());
    assert_eq!(odb.token("t1").await.unwrap(), None);
}

pub(crate) async fn a_token_ends_by_the_databases_clock(database: Database) {
    let odb = database.open();
    odb.put_user(&user("ada", Role::Admin)).await.unwrap();
    odb.put_token(&token("short", "ada", Some(Duration::from_millis(200)))).await.unwrap();
    odb.put_token(&token("good", "ada", None)).await.unwrap();
    let row = odb.token("short").await.unwrap().unwrap();
    assert_eq!((row.user.as_str(), row.role, row.hash.as_str()), ("ada", Role::Viewer, "hash"));
    assert_eq!(row.expires_us, Some(row.created_us + 200_000));
    while odb.token("short").await.unwrap().is_some() {
        assert!(odb.clock_us().await.unwrap() < row.created_us + 300_000, "it should have ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let left = odb.tokens().await.unwrap();
    assert_eq!(left.iter().map(|token| token.id.as_str()).collect::<Vec<_>>(), ["good"]);
}
