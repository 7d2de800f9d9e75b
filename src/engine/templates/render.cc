#include "engine/templates/render.h"

#include <fmt/format.h>

#include "engine/templates/expression.h"

namespace virga::engine::templates {
namespace {

class Renderer {
 public:
  Renderer(std::vector<Piece> pieces, const Context& context, Caps caps)
      : pieces_(std::move(pieces)), scope_{context, {}}, caps_(caps), budget_{caps.steps, caps.depth} {}

  Result<std::string> run() {
    VIRGA_CHECK(block(true));
    if (at_ != pieces_.size()) return template_error(pieces_[at_].line, "this tag has no beginning");
    return std::move(out_);
  }

 private:
  /// Renders, or passes over, pieces up to a tag that ends or divides a block; that tag is left for the caller.
  Result<> block(bool live) {
    if (--budget_.depth < 0) return template_error(line(), "blocks are nested too deeply");
    for (; at_ < pieces_.size(); ++at_) {
      const auto& piece = pieces_[at_];
      // By length, as a tag is read anew each time that it is passed.
      VIRGA_CHECK(budget_.step(1 + (piece.kind == Piece::Kind::text ? 0 : piece.body.size() / 16)));
      if (piece.kind == Piece::Kind::text) {
        if (live) VIRGA_CHECK(write(piece.body));
        continue;
      }
      if (piece.kind == Piece::Kind::output) {
        if (!live) continue;
        VIRGA_TRY(auto words, words_of(piece));
        VIRGA_TRY(auto value, whole(words, 0));
        VIRGA_CHECK(write(value.text()));
        continue;
      }
      VIRGA_TRY(auto words, words_of(piece));
      const auto name = words[0].value;
      if (ends_block(name)) break;
      if (name == "if") {
        VIRGA_CHECK(condition(live));
      } else if (name == "for") {
        VIRGA_CHECK(loop(live));
      } else if (name == "autoescape") {
        // Files are no web pages: nothing is ever escaped, which is what images ask for.
        if (words[1].value != "off") return template_error(piece.line, "only 'autoescape off' is known");
        ++at_;
        VIRGA_CHECK(block(live));
        VIRGA_CHECK(expect("endautoescape"));
      } else {
        return template_error(piece.line, fmt::format("unknown tag '{}'", name.substr(0, 40)));
      }
    }
    ++budget_.depth;
    return {};
  }

  static bool ends_block(std::string_view name) {
    return name == "elif" || name == "else" || name == "endif" || name == "endfor" || name == "endautoescape";
  }

  Result<> condition(bool live) {
    bool done = !live;
    while (true) {
      VIRGA_TRY(auto words, words_of(pieces_[at_]));
      const auto& name = words[0].value;
      bool chosen = false;
      if (name == "else") {
        chosen = !done;
      } else if (!done) {
        VIRGA_TRY(auto value, whole(words, 1));
        chosen = value.truth();
      }
      done = done || chosen;
      const bool last = name == "else";
      ++at_;
      VIRGA_CHECK(block(chosen));
      VIRGA_TRY(auto next, tag());
      if (next == "endif") return {};
      if (last || (next != "elif" && next != "else")) return template_error(line(), "'endif' is missing");
    }
  }

  /// for NAME in LIST, for KEY, VALUE in MAP
  Result<> loop(bool live) {
    VIRGA_TRY(auto words, words_of(pieces_[at_]));
    std::vector<std::string> names;
    std::size_t w = 1;
    while (words[w].kind == Word::Kind::name && words[w].value != "in") {
      names.push_back(words[w++].value);
      if (words[w].value == "," && words[w].kind == Word::Kind::sign) ++w;
    }
    if (names.empty() || names.size() > 2 || words[w].value != "in") return template_error(line(), "expected 'for NAME in LIST'");
    List items;
    if (live) {
      VIRGA_TRY(auto value, whole(words, w + 1));
      VIRGA_TRY(items, items_of(value));
    }
    const auto body = ++at_;
    if (items.empty()) VIRGA_CHECK(block(false));
    const auto outer = scope_.locals;
    for (std::size_t i = 0; i < items.size(); ++i) {
      VIRGA_CHECK(budget_.step());
      at_ = body;
      set_locals(names, items[i], i, items.size());
      VIRGA_CHECK(block(true));
    }
    scope_.locals = outer;
    return expect("endfor");
  }

  /// A map's items are pairs of key and value.
  Result<List> items_of(const Value& value) {
    if (auto* list = value.list()) return *list;
    List out;
    if (auto* map = value.map())
      for (const auto& [key, item] : *map) {
        VIRGA_CHECK(budget_.step());
        out.push_back(List{Value(key), item});
      }
    return out;
  }

  void set_locals(const std::vector<std::string>& names, const Value& item, std::size_t i, std::size_t count) {
    auto* pair = item.list();
    if (names.size() == 2) {
      scope_.locals[names[0]] = pair != nullptr && pair->size() == 2 ? (*pair)[0] : Value(static_cast<std::int64_t>(i));
      scope_.locals[names[1]] = pair != nullptr && pair->size() == 2 ? (*pair)[1] : item;
    } else {
      scope_.locals[names[0]] = pair != nullptr && pair->size() == 2 ? (*pair)[0] : item;
    }
    scope_.locals["forloop"] = Map{{"Counter", static_cast<std::int64_t>(i + 1)},
                                   {"Counter0", static_cast<std::int64_t>(i)},
                                   {"First", i == 0},
                                   {"Last", i + 1 == count}};
  }

  Result<std::string> tag() {
    if (at_ >= pieces_.size()) return template_error(line(), "a block does not end");
    VIRGA_TRY(auto words, words_of(pieces_[at_]));
    return words[0].value;
  }

  Result<> expect(std::string_view name) {
    VIRGA_TRY(auto found, tag());
    if (found != name) return template_error(line(), fmt::format("'{}' is missing", name));
    return {};
  }

  Result<Value> whole(const std::vector<Word>& words, std::size_t from) {
    Expression expression(words, from, line(), scope_, budget_);
    VIRGA_TRY(auto value, expression.evaluate());
    const auto& rest = words[expression.position()];
    if (rest.kind != Word::Kind::end)
      return template_error(line(), fmt::format("'{}' cannot stand here", rest.value.substr(0, 40)));
    return value;
  }

  Result<> write(std::string_view text) {
    if (text.size() > caps_.output - out_.size()) return fail(ErrorKind::unavailable, "the template makes too much text");
    out_ += text;
    return {};
  }

  int line() const { return pieces_.empty() ? 1 : pieces_[std::min(at_, pieces_.size() - 1)].line; }

  std::vector<Piece> pieces_;
  Scope scope_;
  Caps caps_;
  Budget budget_;
  std::size_t at_ = 0;
  std::string out_;
};

}  // namespace

Result<std::string> render(std::string_view source, const Context& context, Caps caps) {
  if (source.size() > caps.source) return fail(ErrorKind::invalid, "the template is too long");
  VIRGA_TRY(auto pieces, split(source));
  return Renderer(std::move(pieces), context, caps).run();
}

}  // namespace virga::engine::templates
