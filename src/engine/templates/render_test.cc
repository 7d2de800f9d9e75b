#include "engine/templates/render.h"

#include <gmock/gmock.h>

#include <chrono>

namespace virga::engine::templates {
namespace {

Context context() {
  Context c;
  c.variables["instance"] = Map{{"name", "web"}, {"ephemeral", false}};
  c.variables["path"] = "/etc/hosts";
  c.variables["config"] = Map{{"user.a", "1"}, {"user.b", "two"}};
  c.functions["config_get"] = [](const List& a) -> Value {
    return a.size() == 2 && a[0].text() == "user.a" ? Value("1") : a.at(1);
  };
  return c;
}
std::string good(std::string_view source) {
  auto out = render(source, context());
  return out ? *out : "ERROR " + out.error().text();
}

TEST(Templates, WhatImagesUse) {
  EXPECT_EQ(good("plain { text } $x"), "plain { text } $x");
  EXPECT_EQ(good("127.0.1.1 {{ instance.name }}\n"), "127.0.1.1 web\n");
  EXPECT_EQ(good("{{ config_get(\"user.a\", \"\") }}{{ config_get('user.z', 'none') }}"), "1none");
  EXPECT_EQ(good("{% if config_get(\"user.a\", \"\") == \"\" %}empty{% elif instance.ephemeral %}e{% else %}set{% endif %}"),
            "set");
  EXPECT_EQ(good("{% for k, v in config %}{{ k }}={{ v }};{% endfor %}"), "user.a=1;user.b=two;");
  EXPECT_EQ(good("{% for k in config %}{{ forloop.Counter }}{{ k }}{% if not forloop.Last %},{% endif %}{% endfor %}"),
            "1user.a,2user.b");
  EXPECT_EQ(good("{# nothing #}a {%- if true %} b {%- endif -%}  c"), "a bc");
  EXPECT_EQ(good("{{ config[\"user.b\"]|upper }}{{ missing|default:\"d\" }}{{ \"a,b\"|split:\",\"|length }}"), "TWOd2");
  EXPECT_EQ(good("{% autoescape off %}{{ \"<&>\" }}{% endautoescape %}"), "<&>");
  EXPECT_EQ(good("{% if \"user.a\" in config and 2 > 1 or nothing %}y{% endif %}"), "y");
}

TEST(Templates, WhatIsRefused) {
  for (auto source : {"{% include \"/etc/passwd\" %}",
                      "{% ssi \"/etc/shadow\" %}",
                      "{% extends \"x\" %}",
                      "{% import \"x\" m %}",
                      "{% macro x() %}",
                      "{{ exec(\"id\") }}",
                      "{{ \"x\"|file }}",
                      "{% if %}",
                      "{{ }}",
                      "{% if 1 %}",
                      "{% endif %}",
                      "{% for x %}{% endfor %}",
                      "{{ 1",
                      "{{ \"a }}",
                      "{{ a b }}",
                      "{% if 1 %}{% endfor %}",
                      "{% if 1 %}{% else %}{% else %}{% endif %}",
                      "{{ 99999999999999999999 }}",
                      "{% autoescape on %}{% endautoescape %}",
                      "{{ ; }}"}) {
    auto out = render(source, context());
    ASSERT_FALSE(out) << source;
    EXPECT_EQ(out.error().kind(), ErrorKind::invalid) << source;
  }
}

/// S17: nothing runs for long or grows large, however it is written.
TEST(Templates, CapsHold) {
  Context c = context();
  c.variables["many"] = List(1000, Value(std::string(1000, 'x')));
  auto nested = render("{% for a in many %}{% for b in many %}{% for c in many %}{{ c }}{% endfor %}{% endfor %}{% endfor %}", c);
  ASSERT_FALSE(nested);
  EXPECT_EQ(nested.error().kind(), ErrorKind::unavailable);
  auto silent = render("{% for a in many %}{% for b in many %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}", c);
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().kind(), ErrorKind::unavailable);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{% if 1 %}";
  EXPECT_FALSE(render(deep, c));
  EXPECT_FALSE(render("{{ " + std::string(100'000, '(') + " }}", c));
  std::string nots = "{{ ";
  for (int i = 0; i < 90'000; ++i) nots += "not ";
  EXPECT_FALSE(render(nots + "1 }}", c));
  EXPECT_FALSE(render(std::string(2u << 20, 'x'), c));
}

/// S17: a step takes a bounded time, however long the texts are that it works on.
TEST(Templates, StepsAreShort) {
  Context c = context();
  const std::string few(30'000, 'a'), many(60'000, 'a');
  c.functions["few"] = [&](const List&) { return Value(few + "b"); };
  c.functions["many"] = [&](const List&) { return Value(many); };
  c.variables["many"] = many;
  auto seconds_for = [&](const std::string& source) {
    const auto began = std::chrono::steady_clock::now();
    (void)render(source, c);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  };
  std::string searches;
  for (int i = 0; i < 5'000; ++i) searches += "{% if few() in many() %}{% endif %}";
  EXPECT_LT(seconds_for(searches), 3);
  const std::string long_one(300'000, 'a');
  EXPECT_LT(seconds_for("{% if \"" + long_one + "b\" in \"" + long_one + long_one + "\" %}{% endif %}"), 3);
  std::string cuts;
  for (int i = 0; i < 5'000; ++i) cuts += R"({{ many|cut:"a" }})";
  EXPECT_LT(seconds_for(cuts), 3);
  EXPECT_EQ(render(R"({{ "banana"|cut:"an" }}{{ "banana"|cut:"" }}{{ "banana"|cut:"x" }}{{ "an"|cut:"an" }})", c).value_or("?"),
            "babananabanana");
}

}  // namespace
}  // namespace virga::engine::templates
