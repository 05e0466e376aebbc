{#- The columns of a table of the tap. What was not selected, or was loaded before there was such a
    column, is NULL; a table that is not there has no rows. -#}
{% macro vero_table(table, columns) %}
  {%- set wanted = source('vero', table) -%}
  {%- set found = none -%}
  {%- if execute -%}
    {%- set found = adapter.get_relation(
      database=wanted.database, schema=wanted.schema, identifier=wanted.identifier
    ) -%}
  {%- endif -%}
  {%- set present = [] -%}
  {%- if found is not none -%}
    {%- for column in adapter.get_columns_in_relation(found) -%}
      {%- do present.append(column.name | lower) -%}
    {%- endfor -%}
  {%- endif -%}
  SELECT
  {%- for name in columns %}
    CAST({{ 't.' ~ name if name in present else 'NULL' }} AS
      {{- ' ' ~ (dbt.type_timestamp() if name in ('timestamp', 'loaded_at') else dbt.type_string()) -}}
    ) AS {{ name if name != 'timestamp' else 'happened_at' }}{{ ',' if not loop.last }}
  {%- endfor %}
  {% if found is not none -%}
  FROM {{ found }} AS t
  {%- else -%}
  FROM (SELECT 1 AS one) AS t
  WHERE 1 = 0
  {%- endif -%}
{% endmacro %}
