//! One suite of tests for every backend, and what only some of them can suffer.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests report by panicking"
)]

mod database;
mod links;
mod network;
mod outside;
mod sqlite_file;
mod suite;
mod support;
mod upgrade;

/// Makes a test per backend of every function named.
macro_rules! on_every_backend {
    ($($topic:ident::$test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                crate::database::on_sqlite(crate::suite::$topic::$test).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                crate::database::on_postgres(crate::suite::$topic::$test).await;
            })*
        }
        mod mysql {
            $(#[tokio::test]
            async fn $test() {
                crate::database::on_mysql(crate::suite::$topic::$test).await;
            })*
        }
    };
}

on_every_backend! {
    account::a_removed_user_takes_its_tokens_along,
    account::a_token_ends_by_the_databases_clock,
    account::a_user_is_replaced_by_name,
    change::a_change_for_an_old_revision_is_a_conflict,
    change::a_change_makes_one_revision_and_its_audit,
    change::a_change_that_fails_half_way_changes_nothing,
    change::a_change_that_changes_nothing_makes_no_revision,
    change::an_abandoned_change_leaves_nothing_behind,
    change::a_writer_that_is_kept_waiting_is_told_so,
    change::an_earlier_state_comes_back_whole,
    change::eight_writers_lose_no_update_and_leave_no_gap,
    change::names_that_differ_in_case_or_spaces_are_different,
    change::secrets_are_stored_sealed_and_by_version,
    change::the_audit_is_read_in_pages,
    cluster::a_deposed_leader_changes_no_row,
    cluster::a_drained_server_learns_it_with_its_heartbeat,
    cluster::a_join_token_lets_one_server_in_once,
    cluster::a_new_life_of_a_server_starts_anew,
    cluster::a_removed_server_is_told_so,
    cluster::a_revoked_certificate_stays_so,
    cluster::a_running_server_keeps_its_name,
    cluster::certificates_are_on_record,
    cluster::secrets_outlive_the_audit_that_refers_to_them,
    cluster::servers_whose_heartbeats_cease_are_marked_dead,
    cluster::the_audit_is_trimmed_from_its_old_end,
    cluster::the_leader_is_a_server_until_its_lease_ends,
    data::a_deleted_entry_does_not_give_its_version_to_the_next,
    data::compare_and_set_lets_one_of_two_writers_through,
    data::eight_writers_count_to_the_right_number,
    data::entries_lapse_by_the_databases_clock,
    data::several_changes_are_made_together_or_not_at_all,
    data::keys_are_listed_by_prefix_in_the_order_of_bytes,
    data::values_survive_as_they_are,
    data::what_may_be_used_once_is_used_once_whoever_asks,
    deployment::a_deployment_that_is_there_only_gets_the_new_manifest,
    deployment::an_active_deployment_outlives_twenty_newer_ones,
    deployment::an_artifact_survives_in_pieces,
    deployment::an_unknown_deployment_is_not_activated,
    deployment::attempts_and_pickup_files_are_remembered,
    deployment::the_audit_says_which_deployment_was_active,
    deployment::twenty_deployments_are_kept,
    server::a_lease_has_one_holder_and_a_growing_number,
    server::a_server_is_forgotten_with_what_it_reported,
    server::migrating_twice_at_once_is_harmless,
    server::the_certificate_authority_is_replaced,
}
