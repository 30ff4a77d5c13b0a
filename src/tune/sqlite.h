// SQLite's C interface as owned values: a connection, prepared statements, errors with advice.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hone::tune {

// A statement that runs once or row after row. Parameters are numbered from 1, columns from 0.
class Statement {
 public:
  Statement(sqlite3* database, std::string path, sqlite3_stmt* statement)
      : database_(database), path_(std::move(path)), statement_(statement, &sqlite3_finalize) {}

  Statement& bind(int at, std::string_view text);
  Statement& bind(int at, std::int64_t value);
  Statement& bind(int at, double value);  // NaN becomes NULL: SQLite has none

  // True with a row, false at the end; then the statement is ready to be bound again.
  Result<bool> step();
  // For what gives no rows.
  Status run();

  std::string text(int column) const;
  std::int64_t integer(int column) const;
  double real(int column) const;  // NaN for NULL
  bool is_null(int column) const;

 private:
  sqlite3* database_;
  std::string path_;
  std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement_;
  int trouble_ = SQLITE_OK;  // the first binding that failed
};

class Database {
 public:
  // kNotFound if the file is absent and not to be made.
  static Result<Database> open(const std::string& path, bool create);

  Result<Statement> prepare(const std::string& sql) const;
  // One or more statements without parameters or rows.
  Status execute(const std::string& sql) const;
  // The first column of the first row.
  Result<std::int64_t> integer(const std::string& sql) const;
  std::int64_t last_row() const { return sqlite3_last_insert_rowid(handle_.get()); }
  std::int64_t changes() const { return sqlite3_changes64(handle_.get()); }
  const std::string& path() const { return path_; }

 private:
  Database(sqlite3* handle, std::string path)
      : path_(std::move(path)), handle_(handle, &sqlite3_close_v2) {}
  std::string path_;
  std::unique_ptr<sqlite3, int (*)(sqlite3*)> handle_;
};

// Everything until commit(), or nothing. Takes the right to write at once, so that what was read
// is still true when it is written.
class Transaction {
 public:
  static Result<Transaction> begin(const Database& database);
  Status commit();
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();

 private:
  explicit Transaction(const Database& database) : database_(&database) {}
  const Database* database_;  // null once it is over
};

}  // namespace hone::tune
